// SPDX-License-Identifier: Apache-2.0
// terrace plan: what memory a model takes and how long a token would take on this machine, before anything is
// run. The prediction is models/cost_model.h; the machine's rates are measured.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/isa.h"
#include "models/budget.h"
#include "models/position_builder.h"
#include "models/presets.h"
#include "models/widths.h"
#include "tools/common/checks.h"
#include "tools/common/command.h"
#include "tools/common/dtype_argument.h"
#include "tools/common/model_arguments.h"
#include "tools/common/output.h"
#include "tools/common/warnings.h"
#include "tools/planning/plan_report.h"

namespace terrace::tools {
namespace {

struct Options {
  std::string model;  ///< a file, or
  std::string preset;
  bool dense = false;
  std::vector<std::string> dtypes = {"bf16"};
  std::vector<std::uint32_t> contexts;
  std::vector<unsigned> threads;
  std::vector<std::string> kv_types = {kAutoKvType};
  std::vector<std::uint32_t> widths;  ///< one number, or one per block; empty = all that were trained
  std::size_t document = 0;
  std::optional<double> budget_ms;
  bool json = false;
};

PlanRequest of_file(const Options& options) {
  // No layer runs, so what TERRACE_ISA asks for does not matter here.
  const auto model = Model::load(options.model, {.isa = Isa::kScalar});
  PlanRequest request;
  request.name = std::filesystem::path(options.model).filename().string();
  request.config = model->config();
  auto tensors = stored_plan(*model);
  const DType dtype = main_dtype(tensors);
  request.stored.push_back({dtype, std::move(tensors)});
  return request;
}

PlanRequest of_preset(const Options& options) {
  const ModelConfig config = blame("--preset", [&] { return preset_config(options.preset, options.dense); });
  PlanRequest request;
  request.name =
      options.preset + (options.dense ? ", dense" : "") + (config.encoder ? ", decoder alone" : "");
  request.config = decoder_as_language_model(config);
  for (const std::string& name : options.dtypes) {
    const DType dtype = parse_dtype(name);
    request.stored.push_back({dtype, stored_plan(request.config, dtype)});
  }
  return request;
}

/// The flags' lists, or what stands for one that was not given. Throws UsageError for what the model cannot
/// have.
void fill_lists(const Options& options, PlanRequest& request) {
  const ModelConfig& config = request.config;
  const std::size_t limit = position_limit(config, config.decoder);
  request.contexts = options.contexts;
  if (request.contexts.empty()) {
    request.contexts.push_back(static_cast<std::uint32_t>(std::min<std::size_t>(limit, config.max_context)));
  }
  for (const std::uint32_t context : request.contexts) {
    if (context > limit) {
      throw UsageError(
          fmt::format("-c: expected at most {}, where the model's positions end, found {}", limit, context));
    }
  }
  request.threads = options.threads;
  if (request.threads.empty()) request.threads.push_back(Runtime::default_threads());
  request.kv_types = options.kv_types;
  if (!options.widths.empty()) {
    blame("--width", [&] { check_widths(config, options.widths); });
    request.widths.push_back(options.widths);
  } else {
    for (const std::uint32_t width : nested_widths(config)) request.widths.push_back({width});
  }
  if (options.document > 0 && !config.encoder) {
    throw UsageError("--document: expected a model with an encoder, found one without");
  }
  if (config.encoder) {
    const std::size_t most = position_limit(config, *config.encoder);
    if (options.document > most) {
      throw UsageError(
          fmt::format("--document: expected at most {}, where the encoder's positions end, found {}", most,
                      options.document));
    }
    request.document = options.document;
  }
}

/// The point that is shown in detail, at the longest context: what the budget chooses; without one the
/// fastest at the width that sessions have unless they say otherwise.
std::pair<const PlanPoint*, bool> chosen(const PlanRequest& request, const std::vector<PlanPoint>& points,
                                         std::optional<double> budget_ms) {
  const std::uint32_t longest = *std::max_element(request.contexts.begin(), request.contexts.end());
  const std::vector<std::uint32_t> usual{default_width(request.config.decoder.ff, request.config.d_ff)};
  const bool any_width = budget_ms || request.widths.size() == 1;
  std::vector<const PlanPoint*> candidates;
  std::vector<BudgetPoint> figures;
  for (const PlanPoint& point : points) {
    if (point.context != longest || (!any_width && *point.widths != usual)) continue;
    candidates.push_back(&point);
    figures.push_back({point.active_parameters, point.prediction.total.seconds(), point.n_threads});
  }
  const double no_limit = std::numeric_limits<double>::max();
  const BudgetChoice choice = choose_within(figures, budget_ms ? *budget_ms / 1e3 : no_limit);
  return {candidates[choice.index], choice.fits};
}

void run(const Options& options) {
  if (options.dense && options.preset.empty()) throw UsageError("--dense: only a --preset has a dense twin");
  PlanRequest request = options.preset.empty() ? of_file(options) : of_preset(options);
  fill_lists(options, request);
  for (const unsigned n_threads : request.threads) warn_about_threads(n_threads);
  warn_about_isa(isa_from_environment());
  const std::vector<PlanPoint> points = plan_points(request);
  const auto [shown, fits] = chosen(request, points, options.budget_ms);
  const PlanReport report{request, points, *shown, options.budget_ms, fits};
  write_stdout(options.json ? report.json() : report.text());
}

void add_subject(CLI::App& command, Options& options) {
  auto* source = command.add_option_group("subject", "What to plan for (one of)");
  CLI::Option* model = source->add_option("-m,--model", options.model, "Model file")->type_name("FILE");
  source
      ->add_option(
          "--preset", options.preset,
          fmt::format("{}; of an encoder-decoder model the decoder alone", fmt::join(preset_names(), ", ")))
      ->check(CLI::IsMember(preset_names()))
      ->type_name("NAME");
  source->require_option(1);
  command.add_flag("--dense", options.dense, "The preset's dense twin of equal parameter count");
  add_preset_dtypes(command, options.dtypes)->excludes(model);
}

void add_lists(CLI::App& command, Options& options) {
  constexpr std::uint32_t kMost = std::numeric_limits<std::uint32_t>::max();
  command
      .add_option("-c,--context", options.contexts,
                  "Positions in the context when the token is decoded, or several numbers (default: what the "
                  "model was made for)")
      ->delimiter(',')
      ->check(between(std::uint32_t{1}, kMost))
      ->type_name("N[,...]");
  add_thread_counts(command, options.threads);
  command
      .add_option(
          "--kv-type", options.kv_types,
          "How keys and values are kept, or several types: f32, bf16, q8, q4, or auto: as the weights, "
          "q8 where these are quantised")
      ->delimiter(',')
      ->check(CLI::IsMember(kv_type_names()))
      ->capture_default_str()
      ->type_name("TYPE[,...]");
  command
      .add_option("--width", options.widths,
                  "Feed-forward units in use: one number, or one per block (default: every nested width)")
      ->delimiter(',')
      ->check(between(std::uint32_t{1}, kMost))
      ->type_name("N[,N...]");
  command.add_option("--document", options.document, "Tokens that an encoder-decoder model has read")
      ->check(between(std::size_t{0}, std::size_t{1} << 28))
      ->capture_default_str()
      ->type_name("N");
}

}  // namespace

void add_plan(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("plan", "Predict memory and time per token on this machine, from sizes alone");
  add_subject(*command, *options);
  add_lists(*command, *options);
  command
      ->add_option("--budget", options->budget_ms,
                   "Milliseconds per token: choose the widest of what is listed that fits at the longest "
                   "context; of equally wide ones the fastest")
      ->check(between(1e-6, 1e9))
      ->type_name("MS");
  command->add_flag("--json", options->json, "Print as JSON");
  command->callback([options, &action] { action = [options] { run(*options); }; });
}

}  // namespace terrace::tools
