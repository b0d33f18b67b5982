// SPDX-License-Identifier: Apache-2.0
// terrace perplexity: how well a model predicts a text.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string>
#include <vector>

#include "engine/error.h"
#include "models/session.h"
#include "tools/common/checks.h"
#include "tools/common/command.h"
#include "tools/common/encode_text.h"
#include "tools/common/input.h"
#include "tools/common/interrupt.h"
#include "tools/common/json_text.h"
#include "tools/common/model_arguments.h"
#include "tools/common/output.h"
#include "tools/common/progress.h"

namespace terrace::tools {
namespace {

struct Options {
  ModelArguments model;
  std::string file;
  std::uint32_t stride = 0;
  bool json = false;
};

struct Score {
  double nats = 0;           ///< sum of -ln p over the scored tokens
  double squares = 0;        ///< sum of (ln p)^2
  std::uint64_t tokens = 0;  ///< scored
  std::uint64_t bytes = 0;   ///< of their text
  std::uint64_t windows = 0;

  void add(double surprise) noexcept {
    nats += surprise;
    squares += surprise * surprise;
    ++tokens;
  }
  double nats_per_token() const noexcept { return nats / static_cast<double>(tokens); }
  /// Standard error of nats_per_token(), as if the tokens were independent; nothing for a single one.
  std::optional<double> error() const noexcept {
    if (tokens < 2) return std::nullopt;
    const auto n = static_cast<double>(tokens);
    const double variance = std::max(0.0, squares - nats * nats / n) / (n - 1);
    return std::sqrt(variance / n);
  }
};

/// -ln softmax(logits)[token], in double: the sum over a large vocabulary loses digits in float.
double surprise(std::span<const float> logits, TokenId token) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float z : logits) sum += std::exp(static_cast<double>(z) - top);
  return top + std::log(sum) - static_cast<double>(logits[static_cast<std::size_t>(token)]);
}

/// Throws Error{kBadFile} where the logits that predict token `predicted` of the text are not all finite.
void check_finite(std::span<const float> logits, std::size_t predicted, const Model& model) {
  const auto bad = std::find_if(logits.begin(), logits.end(), [](float z) { return !std::isfinite(z); });
  TERRACE_CHECK(bad == logits.end(), kBadFile,
                fmt::format("{}: the logits for token {} of the text are not numbers: that of id {} is {} "
                            "(terrace verify finds damaged weights)",
                            model.file().label(), predicted, bad - logits.begin(), *bad));
}

/// Scores every token once, with at most `context` positions of the model.
///
/// The sequence that the model sees is the start token, if it has one, and then `context - 1` tokens; window
/// k scores the tokens [k * stride, k * stride + stride), so each has at least `context - stride` tokens
/// before it, but for the first window. Without a start token nothing predicts the first token of the text,
/// which is left out.
Score score(Session& session, std::span<const TokenId> ids, std::size_t context, std::size_t stride) {
  const TokenId start = session.model().config().tokens.start;
  const bool has_start = start >= 0;
  Score total;
  Progress bar("perplexity", ids.size(), "tokens");
  std::size_t scored = has_start ? 0 : 1;  // tokens before this one are done
  while (scored < ids.size()) {
    Interrupt::check();
    // The first window is a full one; every later one brings `stride` new tokens.
    const std::size_t reach =
        has_start ? context : context + 1;  // tokens a window can predict, one after its input
    const std::size_t end = std::min(ids.size(), total.windows == 0 ? reach : scored + stride);
    const std::size_t begin = end - std::min(end, reach);
    const auto inputs = ids.subspan(begin, end - 1 - begin);
    std::vector<TokenId> window(inputs.begin(), inputs.end());
    if (has_start) window.insert(window.begin(), start);
    const std::size_t first_predicted = has_start ? begin : begin + 1;

    session.rewind(0);
    session.prefill(
        window, [](std::size_t, std::size_t) { return !Interrupt::requested(); },
        [&](std::size_t row, std::span<const float> logits) {
          const std::size_t predicted = first_predicted + row;
          if (predicted < scored) return;
          check_finite(logits, predicted, session.model());
          total.add(surprise(logits, ids[predicted]));
        });
    scored = end;
    ++total.windows;
    bar.update(scored);
  }
  return total;
}

void run(const Options& options) {
  const Interrupt interrupt;
  const auto model = options.model.load();
  TERRACE_CHECK(!model->has_encoder(), kUnsupported,
                fmt::format("{}: perplexity of a text needs a language model; this one has an encoder",
                            options.model.model));
  const Tokenizer& tokenizer = need_tokenizer(*model);
  const std::string text = read_file(options.file);
  const auto ids = encode_text(model, text, options.file);
  const bool has_start = model->config().tokens.start >= 0;
  const std::size_t least = has_start ? 1 : 2;
  TERRACE_CHECK(
      ids.size() >= least, kBadFile,
      fmt::format("{}: expected a text of at least {} token(s), found {}", options.file, least, ids.size()));

  Runtime runtime(options.model.runtime());
  Session session = options.model.open_session(model, runtime);
  const std::size_t context = session.max_context();
  const std::size_t stride = options.stride > 0 ? options.stride : std::max<std::size_t>(1, context / 2);
  if (stride > context) {
    throw UsageError(
        fmt::format("--stride: expected at most the context of {} positions, found {}", context, stride));
  }
  Score result = score(session, ids, context, stride);
  result.bytes = text.size();
  if (!has_start) result.bytes -= tokenizer.decode(std::span(ids).first(1)).size();

  const double nats_per_token = result.nats_per_token();
  const std::optional<double> error = result.error();
  const double bits_per_byte = result.nats / std::numbers::ln2 / static_cast<double>(result.bytes);
  if (options.json) {
    const nlohmann::ordered_json figures = {
        {"nats_per_token", nats_per_token},
        {"nats_per_token_stderr", error ? nlohmann::ordered_json(*error) : nullptr},
        {"perplexity", std::exp(nats_per_token)},
        {"bits_per_byte", bits_per_byte},
        {"tokens", result.tokens},
        {"bytes", result.bytes},
        {"context", context},
        {"stride", stride}};
    write_stdout(json_text(figures));
  } else {
    write_stdout(
        fmt::format("{:.4f} nats/token{}, perplexity {:.3f}, {:.4f} bits/byte "
                    "({} tokens, {} bytes, context {}, stride {})\n",
                    nats_per_token, error ? fmt::format(" ± {:.4f}", *error) : "", std::exp(nats_per_token),
                    bits_per_byte, result.tokens, result.bytes, context, stride));
  }
}

}  // namespace

void add_perplexity(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("perplexity",
                                         "Score a text: nats/token, perplexity, bits/byte. ± is the standard "
                                         "error of the mean, as if the tokens "
                                         "were independent");
  options->model.add_model(*command);
  command->add_option("-f,--file", options->file, "Text to score, or - for standard input")
      ->required()
      ->type_name("FILE");
  command
      ->add_option(
          "--stride", options->stride,
          "New tokens per window (default: half the context); each has at least context - stride before it")
      ->check(between(std::uint32_t{1}, std::numeric_limits<std::uint32_t>::max()))
      ->type_name("N");
  options->model.add_threads(*command);
  options->model.add_session(*command);
  command->add_flag("--json", options->json, "Print the figures as JSON");
  command->callback([options, &action] { action = [options] { run(*options); }; });
}

}  // namespace terrace::tools
