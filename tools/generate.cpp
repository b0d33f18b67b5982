// SPDX-License-Identifier: Apache-2.0
// terrace generate: prefill with a progress bar, then text as it is made.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/atomic_file.h"
#include "engine/error.h"
#include "models/network.h"
#include "models/session.h"
#include "tools/common/checks.h"
#include "tools/common/command.h"
#include "tools/common/continuation.h"
#include "tools/common/draft_arguments.h"
#include "tools/common/generation_stats.h"
#include "tools/common/interrupt.h"
#include "tools/common/model_arguments.h"
#include "tools/common/output.h"
#include "tools/common/read_prompt.h"
#include "tools/common/resources.h"
#include "tools/common/sampler_arguments.h"
#include "tools/common/token_printer.h"
#include "tools/common/warnings.h"

namespace terrace::tools {
namespace {

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

/// What can be told before the model is read.
void check(const Options& options) {
  if (!options.prompt.given() && options.state_load.empty()) {
    throw UsageError("expected a prompt (-p, -f or --tokens) or a saved state (--state-load)");
  }
  if (!options.stops.empty() && options.ids) {
    throw UsageError("--stop: is compared with text, and with --ids none is made; expected one of them");
  }
  options.draft.check();
  const PromptArguments& prompt = options.prompt;
  check_output_is_no_input({"--state-save", options.state_save},
                           {{"-m", options.model.model},
                            {"-f", prompt.text_file.value_or("")},
                            {"--tokens", prompt.token_file.value_or("")},
                            {"--encoder-vectors", prompt.vector_file.value_or("")}});
  // Whether the state can be written is known now, not after hours of text.
  if (!options.state_save.empty()) static_cast<void>(AtomicFile(options.state_save, 1));
}

void check(const Options& options, const Model& model) {
  TERRACE_CHECK(options.attention != kLsh || !model.network().decoder_state().lsh.empty(), kBadArgument,
                options.model.model +
                    ": --attention lsh: the decoder has no LSH attention, and other layers keep no hashes; "
                    "expected a model that was trained with it");
  if (!options.stops.empty() && model.tokenizer().vocab_size() == 0) {
    throw UsageError(
        fmt::format("--stop: {} has no tokenizer, so there is no text to compare with", options.model.model));
  }
  if (model.has_encoder() && options.prompt.given() && !options.state_load.empty()) {
    throw UsageError("--state-load: the saved state already holds a document");
  }
}

/// A state keeps its widths, unless others are asked for.
void load_state(const Options& options, Session& session) {
  try {
    session.load(options.state_load);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kContextFull) throw;
    throw Error(error.code(), fmt::format("{}; -c makes it larger", error.what()));
  }
  options.model.set_width(session);
}

/// One run of the subcommand: a session and what becomes of it.
class Generation {
 public:
  Generation(const Options& options, Session& session) : options_(options), session_(session) {}

  StopReason run(const Prompt& prompt) {
    if (!options_.state_load.empty()) load_state(options_, session_);
    loaded_ = session_.position();
    if (options_.prompt.given()) read_prompt(prompt, session_, stats_);
    stats_.first_position = session_.position();
    printer_.emplace(session_.model().tokenizer(), session_.tokens(), options_.ids, options_.stops);
    continuation_.emplace(session_, options_.sampler.config, options_.draft);
    const DiskReads reads_before = DiskReads::so_far();
    const auto start = std::chrono::steady_clock::now();
    const StopReason reason = continue_text();
    continuation_->settle();
    stats_.decode_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    stats_.decode_reads = DiskReads::so_far() - reads_before;
    stats_.decode_tokens = continuation_->n_printed();
    printer_->finish();
    return reason;
  }

  /// The state after run(): it ends with the last token whose text was printed whole.
  void save() {
    if (printer_ && printer_->stopped()) {
      session_.rewind(std::min(session_.position(), stats_.first_position + printer_->n_whole()));
    }
    session_.save(options_.state_save);
  }

  /// The same after an exception, if there is anything to save. Returns whether it is saved.
  bool rescue() {
    try {
      if (continuation_) continuation_->settle();
      if (session_.position() == loaded_) return false;
      save();
      return true;
    } catch (const std::exception& error) {
      warn(fmt::format("the state is lost: {}", error.what()));
      return false;
    }
  }

  void report(Runtime& runtime) {
    const Options& o = options_;
    stats_.measure(session_, runtime, kv_type_for(o.model.kv_type, session_.model()),
                   o.model.exact_attention);
    stats_.sampler = describe_sampler(o.sampler.config);
    if (continuation_->speculation()) stats_.speculation = *continuation_->speculation();
    stats_.seed = o.sampler.config.seed;
    write_stderr(o.json ? stats_.json() : stats_.text());
  }

  std::int64_t n_printed() const { return stats_.decode_tokens; }

 private:
  StopReason continue_text() {
    try {
      return continuation_->run(*printer_, options_.n_predict, !options_.state_save.empty());
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kIo) printer_->finish();  // what was held back; that is stdout's own
      throw;
    }
  }

  const Options& options_;
  Session& session_;
  GenerationStats stats_;
  std::size_t loaded_ = 0;  ///< tokens of the state that was loaded
  std::optional<TokenPrinter> printer_;
  std::optional<Continuation> continuation_;
};

/// Where an error ends it, what was read until then is saved all the same.
StopReason run_or_rescue(const Options& options, Generation& generation, const Prompt& prompt) {
  try {
    return generation.run(prompt);
  } catch (const Error& error) {
    if (options.state_save.empty() || !generation.rescue()) throw;
    throw Error(error.code(),
                fmt::format("{}; {} has the state up to there", error.what(), options.state_save));
  }
}

void run(Options options) {
  check(options);
  const Interrupt interrupt;
  options.sampler.draw_seed();
  const auto model = options.model.load();
  check(options, *model);
  options.model.exact_attention = options.attention == kExact;
  const Prompt prompt = options.prompt.given() ? options.prompt.read(model) : Prompt{};
  if (!options.state_load.empty() && options.model.kv_type == kAutoKvType) {
    options.model.kv_type = kv_type_name(Session::saved_kv_type(options.state_load));
  }
  Runtime runtime(options.model.runtime());
  Session session = options.model.open_session(model, runtime, model->has_encoder() ? prompt.size() : 0);

  Generation generation(options, session);
  const StopReason reason = run_or_rescue(options, generation, prompt);
  if (!options.state_save.empty()) generation.save();
  if (options.stats || options.json) generation.report(runtime);
  TERRACE_CHECK(reason != StopReason::kInterrupted, kCancelled,
                fmt::format("interrupted after {} tokens", generation.n_printed()));
  TERRACE_CHECK(reason != StopReason::kContextFull || options.n_predict == kNoLimit, kContextFull,
                fmt::format("the context of {} positions is full after {} of {} tokens; -c makes it larger",
                            session.max_context(), generation.n_printed(), options.n_predict));
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
  // As it stands: of a list CLI11 would take brackets and commas for its own.
  const auto take_stops = [options](const CLI::results_t& texts) {
    options->stops = texts;
    return true;
  };
  command->add_option("--stop", take_stops, "Stop before this text (may be given several times)")
      ->type_name("TEXT")
      ->take_all();
  command
      ->add_option(
          "--state-save", options->state_save,
          "Write the session to a file at the end, also after an error. It ends with the last token that was "
          "printed whole: one that --stop cuts is not in it, and one that finds no room in the context is "
          "not "
          "printed")
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
  command->add_flag("--json", options->json,
                    "Print these statistics as JSON: the one line on stderr that begins with {");
  command->callback([options, &action] { action = [options] { run(*options); }; });
}

}  // namespace terrace::tools
