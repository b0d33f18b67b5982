// SPDX-License-Identifier: Apache-2.0
#include "tools/common/encode_text.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>
#include <utility>

#include "engine/error.h"
#include "models/byte_tokenizer.h"
#include "models/utf8.h"
#include "tools/common/input.h"
#include "tools/common/interrupt.h"
#include "tools/common/progress.h"
#include "tools/common/resources.h"
#include "tools/common/warnings.h"

namespace terrace::tools {
namespace {

/// Less takes no time that anybody notices.
constexpr std::size_t kShortBytes = 1 << 16;
constexpr auto kWait = std::chrono::milliseconds(50);

std::atomic<bool> g_left_running{false};

void warn_of_other_encodings(const Tokenizer& tokenizer, std::string_view text, std::string_view source) {
  if (dynamic_cast<const ByteTokenizer*>(&tokenizer) != nullptr) return;  // keeps every byte
  const auto at = find_ill_formed_utf8(text);
  if (!at) return;
  const bool utf16 = text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff");
  warn(fmt::format(
      "{}: expected UTF-8, found another byte at offset {}{}; the model reads U+FFFD for each such byte",
      source_name(source), *at, utf16 ? " (it begins like UTF-16)" : ""));
}

}  // namespace

const Tokenizer& need_tokenizer(const Model& model) {
  const Tokenizer& tokenizer = model.tokenizer();
  TERRACE_CHECK(tokenizer.vocab_size() > 0, kUnsupported,
                fmt::format("{}: expected a tokenizer in the model file, found none", model.file().label()));
  return tokenizer;
}

std::vector<TokenId> encode_text(std::shared_ptr<const Model> model, std::string text,
                                 std::string_view source) {
  warn_of_other_encodings(model->tokenizer(), text, source);
  if (text.size() <= kShortBytes) return model->tokenizer().encode(text);
  // SentencePiece encodes a text in one call that cannot be stopped, and parts of a text need not give the
  // ids of the whole: it sums scores in float. So a thread of its own does it, which a signal leaves behind.
  Progress clock("tokenising " + format_bytes(text.size()), Progress::kUnknown, "");
  std::packaged_task<std::vector<TokenId>()> task(
      [model = std::move(model), text = std::move(text)] { return model->tokenizer().encode(text); });
  auto ids = task.get_future();
  std::thread worker(std::move(task));
  while (ids.wait_for(kWait) != std::future_status::ready) {
    clock.update(0);
    if (!Interrupt::requested()) continue;
    g_left_running.store(true);
    worker.detach();
    throw Error(ErrorCode::kCancelled, "interrupted while the text was tokenised");
  }
  worker.join();
  return ids.get();
}

bool tokenizer_left_running() noexcept { return g_left_running.load(); }

}  // namespace terrace::tools
