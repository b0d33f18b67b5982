// SPDX-License-Identifier: Apache-2.0
// terrace init: a model file with random weights, for work on speed.
#include "models/init.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/error.h"
#include "engine/quote.h"
#include "engine/runtime.h"
#include "models/config.h"
#include "models/presets.h"
#include "models/tokenizer.h"
#include "models/utf8.h"
#include "tools/common/checks.h"
#include "tools/common/command.h"
#include "tools/common/dtype_argument.h"
#include "tools/common/input.h"
#include "tools/common/interrupt.h"
#include "tools/common/model_arguments.h"
#include "tools/common/progress.h"
#include "tools/common/warnings.h"

namespace terrace::tools {
namespace {

struct Options {
  std::string preset;
  std::string config_file;
  bool dense = false;
  DTypeArguments dtype;
  std::uint64_t seed = 0;
  std::string tokenizer = "none";
  std::string name;
  unsigned threads = 0;
  std::string out;
};

/// A tokenizer as the file describes it, and its own file's bytes.
struct TokenizerSource {
  std::string description;
  std::string data;
  std::string file = {};
};

/// none | bytes[:OFFSET] | sentencepiece:FILE | subword:FILE[:N_RESERVED_IDS].
TokenizerSource read_tokenizer(const std::string& text) {
  const std::size_t colon = text.find(':');
  const std::string kind = text.substr(0, colon);
  std::string rest = colon == std::string::npos ? "" : text.substr(colon + 1);
  nlohmann::ordered_json description = {{"kind", kind}};
  const auto number = [&](const std::string& digits) {
    TokenId value = 0;
    if (!parse_number(digits, value) || value < 0) {
      throw UsageError(fmt::format("--tokenizer: expected a number from 0 to {} in {}, found '{}'",
                                   std::numeric_limits<TokenId>::max(), quote_text(text), digits));
    }
    return value;
  };

  if (kind == "none" && rest.empty()) return {description.dump(), {}};
  if (kind == "bytes") {
    description["offset"] = rest.empty() ? 0 : number(rest);
    return {description.dump(), {}};
  }
  if ((kind != "sentencepiece" && kind != "subword") || rest.empty()) {
    throw UsageError(fmt::format(
        "--tokenizer: expected none, bytes[:OFFSET], sentencepiece:FILE or subword:FILE[:N_RESERVED], "
        "found '{}'",
        text));
  }
  if (kind == "subword") {
    const std::size_t last = rest.rfind(':');
    description["n_reserved_ids"] = last == std::string::npos ? 0 : number(rest.substr(last + 1));
    rest = rest.substr(0, last);
  }
  return {description.dump(), read_file(rest), rest};
}

/// Throws what making the tokenizer and comparing it with the vocabulary throws, with the name of its file.
void check_tokenizer(const TokenizerSource& source, const ModelConfig& config) {
  const std::string where = source.file.empty() ? "--tokenizer" : source.file;
  try {
    const auto tokenizer = make_tokenizer(source.description, std::as_bytes(std::span(source.data)));
    check_vocabulary(*tokenizer, config.vocab_size, ErrorCode::kBadArgument);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", where, error.what()));
  }
}

ModelConfig read_config(const std::string& path) {
  try {
    return parse_config(read_file(path));
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", path, error.what()));
  }
}

void run(const Options& options) {
  const Interrupt interrupt;
  if (options.dense && options.preset.empty()) throw UsageError("--dense: only a --preset has a dense twin");
  const ModelConfig config = options.preset.empty() ? read_config(options.config_file)
                                                    : preset_config(options.preset, options.dense);
  const TokenizerSource tokenizer = read_tokenizer(options.tokenizer);
  check_output_is_no_input({"--out", options.out},
                           {{"--config", options.config_file}, {"--tokenizer", tokenizer.file}});
  check_tokenizer(tokenizer, config);
  if (const auto at = find_ill_formed_utf8(options.name)) {
    throw UsageError(fmt::format("--name: expected UTF-8, found another byte at offset {}", *at));
  }

  warn_about_threads(options.threads);
  constexpr std::uint64_t kMega = 1'000'000;
  std::unique_ptr<Progress> bar;
  InitOptions init;
  init.dtype = options.dtype.weight_dtypes();
  init.seed = options.seed;
  init.n_threads = options.threads > 0 ? options.threads : Runtime::default_threads();
  init.name = !options.name.empty() ? options.name : options.preset + (options.dense ? " (dense)" : "");
  init.tokenizer = tokenizer.description;
  init.tokenizer_data = std::as_bytes(std::span(tokenizer.data));
  init.progress = [&bar](std::uint64_t done, std::uint64_t total) {
    if (!bar) bar = std::make_unique<Progress>("init", total / kMega, "MB");
    bar->update(done / kMega);
    return !Interrupt::requested();
  };
  init_model(config, options.out, init);
}

}  // namespace

void add_init(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("init", "Write a model file with random weights");
  auto* source = command->add_option_group("model", "What to make (one of)");
  source->add_option("--preset", options->preset, fmt::format("{}", fmt::join(preset_names(), ", ")))
      ->check(CLI::IsMember(preset_names()))
      ->type_name("NAME");
  source->add_option("--config", options->config_file, "Configuration as JSON (docs/model-file.md)")
      ->type_name("FILE");
  source->require_option(1);
  command->add_flag("--dense", options->dense, "The preset's dense twin of equal parameter count");
  options->dtype.add(*command);
  command->add_option("-s,--seed", options->seed, "Seed of the weights")
      ->check(between(std::int64_t{0}, std::numeric_limits<std::int64_t>::max()))
      ->capture_default_str()
      ->type_name("N");
  command
      ->add_option("--tokenizer", options->tokenizer,
                   "none, bytes[:OFFSET], sentencepiece:FILE or subword:FILE[:N_RESERVED] (default none)")
      ->type_name("KIND");
  command->add_option("--name", options->name, "Name in the file's metadata (default: the preset's)")
      ->type_name("TEXT");
  command->add_option("-t,--threads", options->threads, "Threads (default: one per physical core)")
      ->check(between(1U, kMaxThreads))
      ->type_name("N");
  command->add_option("-o,--out", options->out, "Model file to write")->required()->type_name("FILE");
  command->callback([options, &action] { action = [options] { run(*options); }; });
}

}  // namespace terrace::tools
