// SPDX-License-Identifier: Apache-2.0
#include "tools/common/read_prompt.h"

#include <fmt/format.h>

#include <chrono>
#include <vector>

#include "engine/error.h"
#include "tools/common/command.h"
#include "tools/common/interrupt.h"
#include "tools/common/progress.h"

namespace terrace::tools {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Runs work(progress) under a progress bar.
template <class F>
void read_with_bar(const char* label, const Prompt& prompt, std::size_t total, F&& work) {
  Progress bar(label, total, "tokens");
  try {
    work([&](std::size_t done, std::size_t) {
      bar.update(done);
      return !Interrupt::requested();
    });
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kCancelled || prompt.source.empty()) throw;
    throw Error(error.code(), fmt::format("{}: {}", prompt.source, error.what()));
  }
}

/// The document, then the token that starts the answer.
void read_document(const Prompt& prompt, Session& session, GenerationStats& stats) {
  read_with_bar("document", prompt, prompt.size(),
                [&](const auto& progress) { session.encode(prompt.document(), progress); });
  const auto prefill_start = Clock::now();
  session.prefill(std::vector<TokenId>{session.model().config().tokens.start});
  stats.prompt_tokens = stats.encoder_tokens = session.encoder_length();
  stats.encoder_seconds = session.document_times().encoder;
  stats.prefill_seconds = session.document_times().prefill + seconds_since(prefill_start);
}

void read_text(const Prompt& prompt, Session& session, GenerationStats& stats) {
  if (prompt.rows) throw UsageError("--encoder-vectors: this model has no encoder");
  const TokenId start = session.model().config().tokens.start;
  std::vector<TokenId> ids;
  if (session.position() == 0 && start >= 0) ids.push_back(start);
  ids.insert(ids.end(), prompt.ids.begin(), prompt.ids.end());
  const std::size_t room = session.max_context() - session.position();
  TERRACE_CHECK(
      ids.size() <= room, kContextFull,
      fmt::format("{}: {} tokens do not fit the context of {} positions, {} of which are used; -c makes "
                  "it larger",
                  prompt.source, ids.size(), session.max_context(), session.position()));
  read_with_bar("prompt", prompt, ids.size(), [&](const auto& progress) { session.prefill(ids, progress); });
  stats.prompt_tokens = ids.size();
}

}  // namespace

void read_prompt(const Prompt& prompt, Session& session, GenerationStats& stats) {
  const auto start = Clock::now();
  if (session.model().has_encoder()) {
    read_document(prompt, session, stats);
  } else {
    read_text(prompt, session, stats);
  }
  stats.prompt_seconds = seconds_since(start);
}

}  // namespace terrace::tools
