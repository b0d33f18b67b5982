// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmark/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <random>
#include <span>

#include "engine/error.h"
#include "engine/machine_rates.h"
#include "models/cost_model.h"
#include "models/model_cost.h"
#include "models/token_cut.h"
#include "tools/benchmark/contestants.h"
#include "tools/benchmark/dense_twin.h"
#include "tools/benchmark/exact_attention.h"
#include "tools/benchmark/measure.h"
#include "tools/common/command.h"
#include "tools/common/dtype_argument.h"
#include "tools/common/model_arguments.h"
#include "tools/common/progress.h"
#include "tools/common/warnings.h"

namespace terrace::tools {
namespace {

/// Length of the document that an encoder-decoder model reads before its decoder is timed, where its encoder
/// has as many positions.
constexpr std::size_t kDocumentTokens = 64;

std::vector<BenchTest> tests(const BenchOptions& options) {
  std::vector<BenchTest> tests;
  if (options.n_prompt > 0) tests.push_back({BenchTest::Kind::kPrefill, 0, options.n_prompt});
  for (const std::size_t depth : options.depths) {
    if (options.n_decode > 0) tests.push_back({BenchTest::Kind::kDecode, depth, options.n_decode});
  }
  if (tests.empty()) throw UsageError("-n, -p: expected a number of tokens to time, found 0 for both");
  return tests;
}

/// Positions that the longest test needs.
std::size_t context(const std::vector<BenchTest>& tests) {
  std::size_t longest = 0;
  for (const BenchTest& test : tests) longest = std::max(longest, test.context());
  return longest;
}

/// Lets an encoder read a document: any token but the padding, or random rows.
void read_document(Session& session) {
  const ModelConfig& config = session.model().config();
  const std::size_t n = std::min(kDocumentTokens, session.max_encoder_tokens());
  if (config.encoder->d_input == 0) {
    return session.encode(std::vector<TokenId>(n, config.tokens.pad == 1 ? 0 : 1));
  }
  const std::size_t width = config.encoder->d_input;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> rows(n * width);
  for (float& value : rows) value = normal(random);
  session.encode(ConstRows(rows.data(), n, width, width));
}

bool wanted(const BenchOptions& options, const char* variant) {
  return options.variant == "both" || options.variant == variant;
}

/// The models that a preset is to be made into.
std::vector<PlannedModel> planned_models(const BenchOptions& options) {
  const Preset preset = find_preset(options.preset);
  if (options.table1) return table1_models(preset, *options.table1);
  if (options.sweep) return sweep_models(preset, *options.sweep);
  std::vector<PlannedModel> planned;
  if (preset.sparse && wanted(options, "sparse")) {
    planned.push_back({"sparse", decoder_as_language_model(*preset.sparse)});
  }
  if (wanted(options, "dense")) planned.push_back({"dense", decoder_as_language_model(preset.dense)});
  if (planned.empty())
    throw UsageError(fmt::format("--variant: preset {} has no sparse variant", options.preset));
  choose_attention(planned, options.attention);
  return planned;
}

/// All tests of one set of models in one dtype with one number of threads.
class Contest {
 public:
  Contest(const BenchOptions& options, std::string name, DType dtype,
          const std::vector<Contestant>& contestants, unsigned n_threads)
      : options_(options),
        name_(std::move(name)),
        dtype_(dtype),
        contestants_(contestants),
        runtime_({.n_threads = n_threads}),
        compute_rates_(measure_compute_rates(runtime_, dtype)) {
    for (const Contestant& contestant : contestants_) {
      const Model& model = *contestant.model;
      subjects_.push_back(
          {Session(contestant.model, runtime_,
                   {.max_context = context(tests(options)), .kv_type = kv_type_for(options.kv_type, model)}),
           nullptr, scattered_rows(model.config(), stored_plan(model))});
      if (model.has_encoder()) read_document(subjects_.back().session);
      const std::uint64_t touched = model_cost(model).total.touched_bytes;
      if (touched < kOwnProbeBytes) subjects_.back().own_probe = std::make_unique<BandwidthProbe>(touched);
    }
  }

  void run(std::span<const BenchTest> all, const BandwidthProbe& memory, const std::function<void()>& tick,
           std::vector<BenchRow>& rows) {
    std::vector<Timings> timings;
    const auto add_all = [&] {
      for (std::size_t t = 0; t < timings.size(); ++t) {
        if (timings[t].any()) add_rows(all[t], timings[t], rows);
      }
    };
    try {
      measure(subjects_, runtime_, memory, all,
              {.repetitions = options_.repetitions, .profile = options_.profile, .tick = tick}, timings);
    } catch (const Error&) {  // what was measured before an interrupt is not lost
      add_all();
      throw;
    }
    add_all();
  }

 private:
  void add_rows(const BenchTest& test, const Timings& timings, std::vector<BenchRow>& rows) const {
    std::optional<double> dense;
    for (std::size_t i = 0; i < contestants_.size(); ++i) {
      if (contestants_[i].variant == "dense") dense = median(timings.subjects[i].tokens_per_s);
    }
    const double memory_bw = median(timings.read_bw_gb_per_s);
    for (std::size_t i = 0; i < contestants_.size(); ++i) {
      BenchRow row = figures(i, test, timings.subjects[i], memory_bw);
      if (dense) row.speedup_vs_dense = row.tokens_per_s / *dense;
      rows.push_back(std::move(row));
    }
  }

  BenchRow figures(std::size_t i, const BenchTest& test, const Timing& timing, double memory_bw) const {
    const Contestant& contestant = contestants_[i];
    const Model& model = *contestant.model;
    const auto& speeds = timing.tokens_per_s;
    BenchRow row;
    row.model = name_;
    row.variant = contestant.variant;
    row.dtype = dtype_name(dtype_);
    row.threads = runtime_.n_threads();
    row.test = test.name();
    row.depth = test.depth;
    row.n_tokens = test.n_tokens;
    row.tokens_per_s = median(speeds);
    row.tokens_per_s_min = *std::min_element(speeds.begin(), speeds.end());
    row.tokens_per_s_max = *std::max_element(speeds.begin(), speeds.end());
    row.read_bw_gb_per_s = memory_bw;
    const ModelCost cost = model_cost(model);
    row.parameters = cost.total.parameters;
    row.blocks = model.config().decoder.n_layers;
    row.preset_blocks = row.blocks + contestant.blocks_left_out;
    row.profile = timing.profile;
    if (test.kind == BenchTest::Kind::kDecode) {
      const TokenPlace middle{.kv_type = kv_type_for(options_.kv_type, model),
                              .position = test.first() + test.n_tokens / 2,
                              .encoder_length = subjects_[i].session.encoder_length()};
      const auto tensors = stored_plan(model);
      const TokenCut cut = token_cut(model.config(), tensors, {}, middle, runtime_.n_threads());
      MachineRates rates = compute_rates_;
      rates.set(timing.typical_read_rates());
      rates.state_bytes_per_s = 1e9 * memory_bw;
      const Prediction predicted = predict(token_work(model.config(), tensors, {}, middle, cut.shared),
                                           {.of_no_stage = timing.phases_per_token}, rates);
      row.bytes_per_token = static_cast<double>(predicted.total.bytes);
      row.predicted_ms_per_token = 1e3 * predicted.total.seconds();
    }
    return row;
  }

  const BenchOptions& options_;
  std::string name_;
  DType dtype_;
  const std::vector<Contestant>& contestants_;
  Runtime runtime_;
  MachineRates compute_rates_;
  std::vector<Subject> subjects_;
};

void run_contestants(const BenchOptions& options, const std::string& name, DType dtype,
                     const std::vector<Contestant>& contestants, std::vector<BenchRow>& rows) {
  const auto all = tests(options);
  auto thread_counts = options.threads;
  if (thread_counts.empty()) thread_counts.push_back(Runtime::default_threads());
  Progress bar(fmt::format("bench {} {}", name, dtype_name(dtype)),
               thread_counts.size() * all.size() * options.repetitions, "repetitions");
  std::size_t done = 0;
  const BandwidthProbe memory;
  for (const unsigned n_threads : thread_counts) {
    Contest contest(options, name, dtype, contestants, n_threads);
    contest.run(
        all, memory, [&] { bar.update(++done); }, rows);
  }
}

void bench_preset(const BenchOptions& options, std::vector<BenchRow>& rows) {
  auto planned = planned_models(options);
  if (options.blocks > 0) keep_blocks(planned, options.blocks);
  for (const std::string& dtype_name : options.dtypes) {
    const DType dtype = parse_dtype(dtype_name);
    const auto contestants = make_contestants(planned, dtype, options.preset, options.folder,
                                              context(tests(options)), kv_type_for(options.kv_type, dtype));
    run_contestants(options, options.preset, dtype, contestants, rows);
  }
}

void bench_file(const BenchOptions& options, std::vector<BenchRow>& rows) {
  std::vector<Contestant> contestants;
  const auto model = Model::load(options.model);
  warn_about_memory(*model);
  const DType dtype = main_dtype(*model);
  const std::string name = std::filesystem::path(options.model).filename().string();
  const bool sparse = is_sparse(model->config());
  if (!sparse && options.variant == "sparse") {
    throw UsageError(fmt::format("--variant: {} has no sparse layers", options.model));
  }
  if (wanted(options, sparse ? "sparse" : "dense"))
    contestants.push_back({sparse ? "sparse" : "dense", model});
  if (sparse && wanted(options, "dense")) {
    auto twin = make_contestants({{"dense", dense_twin(model->config())}}, dtype, name, options.folder,
                                 context(tests(options)), kv_type_for(options.kv_type, *model));
    contestants.push_back(std::move(twin.front()));
  }
  run_contestants(options, name, dtype, contestants, rows);
}

}  // namespace

void run_bench(const BenchOptions& options, std::vector<BenchRow>& rows) {
  static_cast<void>(tests(options));  // a command line without work is refused before any is done
  if (options.preset.empty()) {
    bench_file(options, rows);
  } else {
    bench_preset(options, rows);
  }
}

}  // namespace terrace::tools
