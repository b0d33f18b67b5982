// SPDX-License-Identifier: Apache-2.0
// terrace moefy: a dense model with its feed-forward layers cut into experts, and what that costs.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/runtime.h"
#include "models/moefication.h"
#include "tools/common/checks.h"
#include "tools/common/command.h"
#include "tools/common/dtype_argument.h"
#include "tools/common/encode_text.h"
#include "tools/common/input.h"
#include "tools/common/interrupt.h"
#include "tools/common/json_text.h"
#include "tools/common/model_arguments.h"
#include "tools/common/output.h"
#include "tools/common/progress.h"
#include "tools/common/table.h"
#include "tools/common/warnings.h"

namespace terrace::tools {
namespace {

/// Unless --experts says otherwise. Small experts lose least (docs/quality.md); the router of these costs an
/// eighth of the w1 that they stand for.
constexpr std::uint32_t kUnitsPerExpert = 8;

struct Options {
  std::string in;
  std::string out;
  std::string text_file;
  std::string token_file;
  std::string dtype;
  std::uint32_t n_experts = 0;
  std::uint32_t n_active = 0;
  std::uint32_t n_tokens = 16384;
  std::uint64_t seed = 1;
  unsigned threads = 0;
  bool json = false;
};

std::vector<TokenId> text_of(const Options& options, const std::shared_ptr<const Model>& model) {
  std::vector<TokenId> ids;
  if (!options.token_file.empty()) {
    ids = read_token_file(options.token_file, model->config().vocab_size);
  } else if (!options.text_file.empty()) {
    ids = encode_text(model, read_file(options.text_file), options.text_file);
  } else {
    return ids;
  }
  const std::string& where = options.token_file.empty() ? options.text_file : options.token_file;
  TERRACE_CHECK(
      ids.size() >= kLeastMoefyText, kBadFile,
      fmt::format("{}: expected a text of at least {} tokens, found {}", where, kLeastMoefyText, ids.size()));
  ids.resize(std::min<std::size_t>(ids.size(), options.n_tokens));
  return ids;
}

/// The numbers of experts, of which every layer must have room for a whole one.
void check_experts(const ModelConfig& config, const MoefyOptions& options) {
  for (const StackStep& step : stack_steps(config, config.decoder)) {
    if (step.kind != StackStep::Kind::kBlock || step.d_ff % options.n_experts == 0) continue;
    throw UsageError(fmt::format("--experts: expected a divisor of the {} units of block {}, found {}",
                                 step.d_ff, step.block, options.n_experts));
  }
  if (options.n_active > options.n_experts) {
    throw UsageError(fmt::format("--active: expected at most the {} experts, found {}", options.n_experts,
                                 options.n_active));
  }
}

std::string percent(double share) { return fmt::format("{:.1f}", 100 * share); }

std::string report_text(const std::vector<MoefiedBlock>& blocks) {
  Table table({{"block"},
               {"active units %"},
               {"kept %"},
               {"best choice %"},
               {"output error %"},
               {"best choice %"},
               {"tokens"}});
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const MoefiedBlock& b = blocks[i];
    if (b.n_tokens == 0) {
      table.add_row({fmt::format("{}", i), "-", "-", "-", "-", "-", "0"});
      continue;
    }
    table.add_row({fmt::format("{}", i), percent(b.active_units), percent(b.kept), percent(b.kept_best),
                   percent(b.error), percent(b.error_best), fmt::format("{}", b.n_tokens)});
  }
  return table.markdown();
}

std::string report_json(const MoefyOptions& options, const std::vector<MoefiedBlock>& blocks) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const MoefiedBlock& b : blocks) {
    rows.push_back({{"tokens", b.n_tokens},
                    {"active_units", b.active_units},
                    {"kept", b.kept},
                    {"kept_best", b.kept_best},
                    {"output_error", b.error},
                    {"output_error_best", b.error_best}});
  }
  const nlohmann::ordered_json figures = {
      {"n_experts", options.n_experts}, {"n_active", options.n_active}, {"blocks", rows}};
  return json_text(figures);
}

void run(const Options& options) {
  check_output_is_no_input(
      {"out", options.out},
      {{"in", options.in}, {"--file", options.text_file}, {"--tokens", options.token_file}});
  const Interrupt interrupt;
  warn_about_threads(options.threads);
  const auto model = Model::load(options.in);
  warn_about_checksums(model->file());
  MoefyOptions moefy{.n_experts = options.n_experts, .n_active = options.n_active, .seed = options.seed};
  if (moefy.n_experts == 0) moefy.n_experts = std::max(1U, model->config().d_ff / kUnitsPerExpert);
  if (moefy.n_active == 0) moefy.n_active = std::max(1U, moefy.n_experts / kMoefyActivePart);
  check_experts(model->config(), moefy);
  if (!options.dtype.empty()) moefy.dtype = parse_dtype(options.dtype);
  const std::vector<TokenId> text = text_of(options, model);
  moefy.text = text;
  std::vector<MoefiedBlock> blocks;
  {
    Progress bar("moefy", 100, "%");
    moefy.progress = [&bar](std::uint64_t done, std::uint64_t total) {
      bar.update(100 * done / total);
      return !Interrupt::requested();
    };
    Runtime runtime({.n_threads = options.threads});
    blocks = moefy_model(*model, runtime, options.out, moefy);
  }
  if (text.empty()) {
    warn("without a text (-f) the weights alone decided, and more is lost");
  }
  if (options.json) return write_stdout(report_json(moefy, blocks));
  write_stderr(fmt::format(
      "{} experts, {} per token. Measured on text that nothing was fitted to: what the chosen experts "
      "keep of sum |a| |w2|, and the error of the layer's output; beside each the best choice of as "
      "many.\n{}`terrace perplexity -m {} -f TEXT` tells what the model lost, `--width` uses more or "
      "fewer units.\n",
      moefy.n_experts, moefy.n_active, report_text(blocks), options.out));
}

}  // namespace

void add_moefy(CLI::App& app, Action& action) {
  constexpr auto kMost = std::numeric_limits<std::uint32_t>::max();
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "moefy", "Cut the dense relu layers of a model into experts of which a token reads some (MoEfication)");
  command->add_option("in", options->in, "Model file to read (best in f32 or bf16)")->required();
  command->add_option("out", options->out, "Model file to write")->required();
  auto* text =
      command->add_option("-f,--file", options->text_file, "Text to learn from, or - for standard input")
          ->type_name("FILE");
  command->add_option("--tokens", options->token_file, "The same as token ids")
      ->type_name("FILE")
      ->excludes(text);
  command->add_option("-n,--n-tokens", options->n_tokens, "Tokens of the text to use")
      ->capture_default_str()
      ->check(between(static_cast<std::uint32_t>(kLeastMoefyText), kMost))
      ->type_name("N");
  command
      ->add_option("--experts", options->n_experts,
                   "Experts per layer; must divide its units (default: of 8 units each)")
      ->check(between(1U, kMost))
      ->type_name("N");
  command->add_option("--active", options->n_active, "Experts that a token uses (default: a quarter of them)")
      ->check(between(1U, kMost))
      ->type_name("N");
  command->add_option("--dtype", options->dtype, "Of the experts' weights (default: as they are stored)")
      ->check(CLI::IsMember(dtype_names()))
      ->type_name("TYPE");
  command->add_option("--seed", options->seed, "Of the first clusters")
      ->check(between(std::int64_t{0}, std::numeric_limits<std::int64_t>::max()))
      ->capture_default_str()
      ->type_name("N");
  command->add_option("-t,--threads", options->threads, "Threads (default: one per physical core)")
      ->check(between(1U, kMaxThreads))
      ->type_name("N");
  command->add_flag("--json", options->json, "Print the figures as JSON");
  command->callback([options, &action] { action = [options] { run(*options); }; });
}

}  // namespace terrace::tools
