// SPDX-License-Identifier: Apache-2.0
// terrace generate: prefill with a progress bar, then text as it is made.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "engine/atomic_file.h"
#include "engine/error.h"
#include "models/draw_next.h"
#include "models/network.h"
#include "models/sampler.h"
#include "models/session.h"
#include "tools/common/checks.h"
#include "tools/common/command.h"
#include "tools/common/draft_arguments.h"
#include "tools/common/generation_stats.h"
#include "tools/common/interrupt.h"
#include "tools/common/model_arguments.h"
#include "tools/common/output.h"
#include "tools/common/progress.h"
#include "tools/common/resources.h"
#include "tools/common/sampler_arguments.h"
#include "tools/common/stop_filter.h"

namespace terrace::tools {
namespace {

constexpr std::int64_t kNoLimit = -1;
constexpr const char* kExact = "exact";
constexpr const char* kLsh = "lsh";

struct Options {
  ModelArguments model;
  PromptArguments prompt;
  SamplerArguments sampler;
  DraftArguments draft;
  std::string attention;
  std::int64_t n_predict = kNoLimit;
  std::string state_save;
  std::string state_load;
  std::vector<std::string> stops;
  bool ids = false;
  bool stats = false;
  bool json = false;
};

enum class StopReason { kLimit, kEndToken, kStopText, kContextFull, kInterrupted };

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Prints tokens as text, up to a stop text, or as ids.
class TokenPrinter {
 public:
  /// `context`: what the text continues. Decoding it first settles spaces and characters at the seam.
  TokenPrinter(const Tokenizer& tokenizer, std::span<const TokenId> context, const Options& options)
      : filter_(options.stops) {
    if (options.ids || tokenizer.vocab_size() == 0) return;  // a model without tokenizer has no text
    decoder_ = tokenizer.stream_decoder();
    for (const TokenId id : context) decoder_->push(id);
  }

  /// False once a stop text is complete.
  bool print(TokenId id) {
    if (!decoder_) {
      write_stdout(fmt::format("{}{}", first_ ? "" : " ", id));
      first_ = false;
      return true;
    }
    write_stdout(filter_.push(decoder_->push(id)));
    return !filter_.stopped();
  }

  void finish() {
    if (decoder_) write_stdout(filter_.push(decoder_->finish()) + filter_.finish());
    if (!decoder_ || isatty(STDOUT_FILENO) == 1) write_stdout("\n");
  }

 private:
  StopFilter filter_;
  std::unique_ptr<StreamDecoder> decoder_;  ///< null when ids are printed
  bool first_ = true;
};

/// Runs work(progress) under a progress bar. What is wrong with the prompt is reported with where it came
/// from.
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

/// An encoder-decoder model reads its document, then the token that starts its answer.
void read_document(const Prompt& prompt, Session& session, GenerationStats& stats) {
  read_with_bar("document", prompt, prompt.size(),
                [&](const auto& progress) { session.encode(prompt.document(), progress); });
  const auto prefill_start = Clock::now();
  session.prefill(std::vector<TokenId>{session.model().config().tokens.start});
  stats.prompt_tokens = stats.encoder_tokens = session.encoder_length();
  stats.encoder_seconds = session.document_times().encoder;
  stats.prefill_seconds = session.document_times().prefill + seconds_since(prefill_start);
}

/// Brings prompt and saved state into the session.
void read_prompt(const Options& options, const Prompt& prompt, Session& session, GenerationStats& stats) {
  const Model& model = session.model();
  if (!options.state_load.empty()) session.load(options.state_load);
  const auto prompt_start = Clock::now();
  if (model.has_encoder()) {
    if (options.state_load.empty()) read_document(prompt, session, stats);
  } else {
    if (prompt.rows) throw UsageError("--encoder-vectors: this model has no encoder");
    const TokenId start = model.config().tokens.start;
    std::vector<TokenId> ids;
    if (session.position() == 0 && start >= 0) ids.push_back(start);
    ids.insert(ids.end(), prompt.ids.begin(), prompt.ids.end());
    read_with_bar("prompt", prompt, ids.size(),
                  [&](const auto& progress) { session.prefill(ids, progress); });
    stats.prompt_tokens = ids.size();
  }
  stats.prompt_seconds = seconds_since(prompt_start);
}

/// Feeds tokens and draws the next ones, one by one or by speculation.
class Decoder {
 public:
  Decoder(const Options& options, Session& session)
      : session_(session),
        sampler_(options.sampler.config, session.model().config().vocab_size),
        speculation_(options.draft.open(session, sampler_)) {}

  /// What follows the prompt.
  TokenId first() { return sampler_.sample(session_.logits(), session_.tokens()); }
  TokenId feed(TokenId id) {
    return speculation_ ? speculation_->feed(id) : draw_next(session_, sampler_, id);
  }
  /// The same where nothing is to follow: for the state.
  void feed_last(TokenId id) {
    settle();
    session_.decode(id);
  }
  /// Tokens in the context that were fed.
  std::size_t position() const { return speculation_ ? speculation_->position() : session_.position(); }
  /// Leaves the session at position().
  void settle() {
    if (speculation_) speculation_->settle();
  }
  const SpeculationStats* speculation() const { return speculation_ ? &speculation_->stats() : nullptr; }

 private:
  Session& session_;
  Sampler sampler_;
  std::unique_ptr<Speculation> speculation_;
};

/// Draws, prints and feeds tokens until something ends the text; counts those printed in `stats`.
StopReason continue_text(const Options& options, const Session& session, Decoder& decoder,
                         TokenPrinter& printer, GenerationStats& stats) {
  const TokenId end = session.model().config().tokens.end;
  TokenId next = decoder.first();
  while (true) {
    if (Interrupt::requested()) return StopReason::kInterrupted;
    if (stats.decode_tokens == options.n_predict) return StopReason::kLimit;
    const TokenId id = next;
    if (id == end) return StopReason::kEndToken;
    const bool go_on = printer.print(id);
    ++stats.decode_tokens;
    if (!go_on) return StopReason::kStopText;
    // The last token of a text need only be fed where something follows it: more text, or a saved state.
    const bool last = stats.decode_tokens == options.n_predict;
    if (last && options.state_save.empty()) return StopReason::kLimit;
    if (decoder.position() == session.max_context())
      return last ? StopReason::kLimit : StopReason::kContextFull;
    if (last) {
      decoder.feed_last(id);
      return StopReason::kLimit;
    }
    next = decoder.feed(id);
  }
}

void check_attention(const Options& options, const Model& model) {
  TERRACE_CHECK(options.attention != kLsh || !model.network().decoder_state().lsh.empty(), kBadArgument,
                options.model.model +
                    ": --attention lsh: the decoder has no LSH attention, and other layers keep no hashes; "
                    "expected a model that was trained with it");
}

void run(Options options) {
  if (!options.prompt.given() && options.state_load.empty()) {
    throw UsageError("expected a prompt (-p, -f or --tokens) or a saved state (--state-load)");
  }
  options.draft.check();
  const Interrupt interrupt;
  options.sampler.draw_seed();
  // Whether the state can be written is known now, not after hours of text.
  if (!options.state_save.empty()) static_cast<void>(AtomicFile(options.state_save, 1));
  const auto model = options.model.load();
  check_attention(options, *model);
  options.model.exact_attention = options.attention == kExact;
  const Prompt prompt = options.prompt.given() ? options.prompt.read(*model) : Prompt{};
  if (model->has_encoder() && options.prompt.given() && !options.state_load.empty()) {
    throw UsageError("--state-load: the saved state already holds a document");
  }
  if (!options.state_load.empty() && options.model.kv_type == kAutoKvType) {
    options.model.kv_type = kv_type_name(Session::saved_kv_type(options.state_load));
  }
  Runtime runtime(options.model.runtime());
  Session session = options.model.open_session(model, runtime, model->has_encoder() ? prompt.size() : 0);

  GenerationStats stats;
  read_prompt(options, prompt, session, stats);

  TokenPrinter printer(model->tokenizer(), session.tokens(), options);
  stats.first_position = session.position();
  const DiskReads reads_before = DiskReads::so_far();
  const auto decode_start = Clock::now();
  Decoder decoder(options, session);
  StopReason reason{};
  {
    const auto region = session.hold();
    reason = continue_text(options, session, decoder, printer, stats);
    decoder.settle();
  }
  stats.decode_seconds = seconds_since(decode_start);
  stats.decode_reads = DiskReads::so_far() - reads_before;
  printer.finish();

  if (!options.state_save.empty()) session.save(options.state_save);
  if (options.stats || options.json) {
    stats.measure(session, runtime, kv_type_for(options.model.kv_type, *model), options.model.widths,
                  options.model.exact_attention);
    stats.sampler = describe_sampler(options.sampler.config);
    if (decoder.speculation()) stats.speculation = *decoder.speculation();
    stats.seed = options.sampler.config.seed;
    const std::string report = options.json ? stats.json() : stats.text();
    std::fwrite(report.data(), 1, report.size(), stderr);
  }
  TERRACE_CHECK(reason != StopReason::kInterrupted, kCancelled,
                fmt::format("interrupted after {} tokens", stats.decode_tokens));
  TERRACE_CHECK(reason != StopReason::kContextFull || options.n_predict == kNoLimit, kContextFull,
                fmt::format("the context of {} positions is full after {} of {} tokens; -c makes it larger",
                            session.max_context(), stats.decode_tokens, options.n_predict));
}

void add_attention(CLI::App& command, Options& options) {
  command
      .add_option("--attention", options.attention,
                  "Of LSH layers: the positions that hashes choose (lsh, the default) or all that are "
                  "remembered (exact). Other layers are exact")
      ->check(CLI::IsMember({kExact, kLsh}))
      ->type_name("KIND");
}

}  // namespace

void add_generate(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("generate", "Continue a text (encoder-decoder models: answer a document)");
  options->model.add_model(*command);
  options->prompt.add(*command);
  command
      ->add_option("-n,--predict", options->n_predict,
                   "Tokens to generate (default -1: until the text or the context ends)")
      ->check(between(kNoLimit, std::numeric_limits<std::int64_t>::max()))
      ->type_name("N");
  options->model.add_session(*command);
  options->model.add_threads(*command);
  add_attention(*command, *options);
  options->draft.add(*command);
  options->sampler.add(*command);
  command->add_option("--stop", options->stops, "Stop before this text (may be given several times)")
      ->type_name("TEXT")
      ->take_all();
  command->add_option("--state-save", options->state_save, "Write the session to a file at the end")
      ->type_name("FILE");
  command
      ->add_option(
          "--state-load", options->state_load,
          "Start from a saved session; the prompt is appended to it, and auto keeps keys and values as "
          "it does")
      ->type_name("FILE");
  command->add_flag("--ids", options->ids,
                    "Print token ids instead of text (always so for a model without tokenizer)");
  command->add_flag("--stats", options->stats, "Print speed, bytes and memory to stderr at the end");
  command->add_flag("--json", options->json, "Print these statistics as JSON");
  command->callback([options, &action] { action = [options] { run(*options); }; });
}

}  // namespace terrace::tools
