// SPDX-License-Identifier: Apache-2.0
// terrace logits: the scores after every token of a given sequence, for comparison with other
// implementations.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <memory>
#include <string>

#include "engine/error.h"
#include "models/encoder_input.h"
#include "models/evaluate.h"
#include "models/session.h"
#include "tools/common/checks.h"
#include "tools/common/command.h"
#include "tools/common/input.h"
#include "tools/common/interrupt.h"
#include "tools/common/model_arguments.h"
#include "tools/common/npy.h"
#include "tools/common/progress.h"

namespace terrace::tools {
namespace {

struct Options {
  ModelArguments model;
  std::string tokens;
  std::string encoder_tokens;
  std::string encoder_vectors;
  std::string out;
  std::string mode = "full";
};

enum class Mode { kFull, kStep, kPrefill };

struct ParsedMode {
  Mode mode;
  std::size_t prefill = 0;  ///< tokens in the first pass
};

ParsedMode parse_mode(const std::string& text) {
  constexpr std::string_view kPrefill = "prefill:";
  if (text == "full") return {Mode::kFull};
  if (text == "step") return {Mode::kStep};
  std::size_t k = 0;
  if (text.starts_with(kPrefill)) {
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data() + kPrefill.size(), end, k);
    if (error == std::errc() && rest == end && k > 0) return {Mode::kPrefill, k};
  }
  throw UsageError(fmt::format("--mode: expected full, step or prefill:K with K > 0, found '{}'", text));
}

/// The encoder's tokens or rows; an empty source where neither was given.
Prompt read_encoder_input(const Options& options) {
  if (!options.encoder_vectors.empty()) {
    return {options.encoder_vectors, {}, read_npy(options.encoder_vectors)};
  }
  if (options.encoder_tokens.empty()) return {};
  return {options.encoder_tokens, read_token_file(options.encoder_tokens), {}};
}

/// Throws what the encoder would say of its input, with the name of the file.
void check_document(const ModelConfig& config, const EncoderInput& input, const std::string& source) {
  try {
    const Document document(config, input, /*multiple=*/1, Document::Padding::kDrop);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", source, error.what()));
  }
}

/// Known before the first token: a sequence that does not fit should fail at once.
void check_fits(const Options& options, std::size_t n_ids, std::size_t context) {
  TERRACE_CHECK(n_ids <= context, kContextFull,
                fmt::format("{}: {} tokens do not fit the context of {} positions (-c)", options.tokens,
                            n_ids, context));
}

/// Feeds `ids` to a session: the first `n_prefill` in one pass, then one by one.
void run_session(const Options& options, const std::shared_ptr<const Model>& model, Runtime& runtime,
                 std::span<const TokenId> ids, const EncoderInput* document, std::size_t n_prefill,
                 NpyWriter& out) {
  Session session = options.model.open_session(model, runtime, document ? length_of(*document) : 0);
  Progress bar("logits", ids.size(), "tokens");
  const auto go_on = [](std::size_t, std::size_t) { return !Interrupt::requested(); };
  if (document) session.encode(*document, go_on);
  check_fits(options, ids.size(), session.max_context());
  session.prefill(
      ids.first(n_prefill),
      [&](std::size_t done, std::size_t total) {
        bar.update(done);
        return go_on(done, total);
      },
      [&](std::size_t, std::span<const float> logits) { out.add_row(logits); });
  const auto region = session.hold();
  for (const TokenId id : ids.subspan(n_prefill)) {
    Interrupt::check();
    out.add_row(session.decode(id));
    bar.update(session.position());
  }
}

void run(const Options& options) {
  const ParsedMode mode = parse_mode(options.mode);
  check_output_is_no_input({"--out", options.out}, {{"-m", options.model.model},
                                                    {"--tokens", options.tokens},
                                                    {"--encoder-tokens", options.encoder_tokens},
                                                    {"--encoder-vectors", options.encoder_vectors}});
  const Interrupt interrupt;
  const auto model = options.model.load();
  const auto ids = read_token_file(options.tokens, model->config().vocab_size);
  TERRACE_CHECK(!ids.empty(), kBadFile, fmt::format("{}: expected token ids, found none", options.tokens));
  const Prompt prompt = read_encoder_input(options);
  if (model->has_encoder() == prompt.source.empty()) {
    throw UsageError(model->has_encoder() ? "--encoder-tokens: this model has an encoder and needs its input"
                                          : "--encoder-tokens: this model has no encoder");
  }
  const EncoderInput input = prompt.document();
  const EncoderInput* const document = model->has_encoder() ? &input : nullptr;
  if (document) check_document(model->config(), *document, prompt.source);

  if (options.model.context > 0) check_fits(options, ids.size(), options.model.context);

  Runtime runtime(options.model.runtime());
  NpyWriter out(options.out, ids.size(), model->config().vocab_size);
  // A session has a width; evaluate() is for the layers whose whole-sequence form is another function.
  const bool whole = mode.mode == Mode::kFull && options.model.widths.empty();
  if (mode.mode == Mode::kFull && !whole && !steps_equal_evaluation(*model)) {
    throw UsageError("--width: this model's --mode full is no session; expected step or prefill:K");
  }
  if (whole) {
    const auto add_row = [&](std::size_t, std::span<const float> logits) {
      Interrupt::check();
      out.add_row(logits);
    };
    evaluate(*model, runtime, ids, document, add_row, kv_type_for(options.model.kv_type, *model));
  } else {
    const std::size_t n_prefill = mode.mode == Mode::kFull ? ids.size() : std::min(mode.prefill, ids.size());
    run_session(options, model, runtime, ids, document, n_prefill, out);
  }
  out.commit();
}

}  // namespace

void add_logits(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "logits", "Write the logits after each of the given tokens as a NumPy file [n_ids, vocab]");
  options->model.add_model(*command);
  command
      ->add_option("--tokens", options->tokens, "Token ids, fed exactly as they are (- for standard input)")
      ->required()
      ->type_name("FILE");
  auto* encoder_tokens =
      command->add_option("--encoder-tokens", options->encoder_tokens, "Token ids of the encoder's input")
          ->type_name("FILE");
  command
      ->add_option(
          "--encoder-vectors", options->encoder_vectors,
          "The encoder's input as rows, for models that take these: a NumPy file, float32 [n, width]")
      ->excludes(encoder_tokens)
      ->type_name("FILE");
  command->add_option("-o,--out", options->out, "NumPy file to write (float32)")
      ->required()
      ->type_name("FILE");
  command
      ->add_option(
          "--mode", options->mode,
          "full: one pass over the whole sequence (default); step: one by one; prefill:K: K tokens in one "
          "pass, then one by one")
      ->type_name("MODE");
  options->model.add_threads(*command);
  options->model.add_session(*command);
  command->callback([options, &action] { action = [options] { run(*options); }; });
}

}  // namespace terrace::tools
