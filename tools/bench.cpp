// SPDX-License-Identifier: Apache-2.0
// terrace bench: speed of a sparse model beside its dense twin, in one run.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/isa.h"
#include "models/presets.h"
#include "models/session.h"
#include "tools/benchmark/contestants.h"
#include "tools/benchmark/dense_twin.h"
#include "tools/benchmark/measure.h"
#include "tools/benchmark/row.h"
#include "tools/common/checks.h"
#include "tools/common/command.h"
#include "tools/common/dtype_argument.h"
#include "tools/common/interrupt.h"
#include "tools/common/model_arguments.h"
#include "tools/common/model_cost.h"
#include "tools/common/output.h"
#include "tools/common/progress.h"
#include "tools/common/warnings.h"

namespace terrace::tools {
namespace {

/// Length of the document that an encoder-decoder model reads before its decoder is timed.
constexpr std::size_t kDocumentTokens = 64;

struct Options {
  std::string model;
  std::string preset;
  std::string variant = "both";
  std::vector<std::string> dtypes = {"bf16"};
  std::vector<unsigned> threads;
  std::size_t n_decode = 64;
  std::size_t n_prompt = 128;
  std::vector<std::size_t> depths = {0};
  std::size_t repetitions = 5;
  std::string kv_type = "f32";
  std::string folder;
  std::string format = "md";

  Session::Options session(std::size_t context) const {
    return {.max_context = context, .kv_type = parse_kv_type(kv_type)};
  }
};

std::vector<BenchTest> tests(const Options& options) {
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

bool wanted(const Options& options, const std::string& variant) {
  return options.variant == "both" || options.variant == variant;
}

/// Both variants of a preset, or those that were asked for.
std::vector<PlannedModel> planned_models(const Options& options) {
  const Preset preset = find_preset(options.preset);
  std::vector<PlannedModel> planned;
  if (preset.sparse && wanted(options, "sparse")) {
    planned.push_back({"sparse", decoder_as_language_model(*preset.sparse)});
  }
  if (wanted(options, "dense")) planned.push_back({"dense", decoder_as_language_model(preset.dense)});
  if (planned.empty())
    throw UsageError(fmt::format("--variant: preset {} has no sparse variant", options.preset));
  return planned;
}

/// How most of a file's weights are stored.
DType main_dtype(const WeightFile& file) {
  std::array<std::uint64_t, 4> bytes{};
  for (const TensorInfo& tensor : file.tensors()) {
    if (const auto dtype = weight_dtype(tensor)) bytes[static_cast<std::size_t>(*dtype)] += tensor.bytes;
  }
  return static_cast<DType>(std::max_element(bytes.begin(), bytes.end()) - bytes.begin());
}

/// Adds what `test` gave to `rows`, one row per contestant.
void add_rows(const std::string& model, DType dtype, const Runtime& runtime, const BenchTest& test,
              const std::vector<Contestant>& contestants, const Options& options, const Timings& timings,
              std::vector<BenchRow>& rows) {
  std::optional<double> dense;
  for (std::size_t i = 0; i < contestants.size(); ++i) {
    if (contestants[i].variant == "dense") dense = median(timings.tokens_per_s[i]);
  }
  for (std::size_t i = 0; i < contestants.size(); ++i) {
    const auto& speeds = timings.tokens_per_s[i];
    const Model& subject = *contestants[i].model;
    BenchRow row{.model = model,
                 .variant = contestants[i].variant,
                 .dtype = dtype_name(dtype),
                 .threads = runtime.n_threads(),
                 .test = test.name(),
                 .depth = test.depth,
                 .n_tokens = test.n_tokens,
                 .tokens_per_s = median(speeds),
                 .tokens_per_s_min = *std::min_element(speeds.begin(), speeds.end()),
                 .tokens_per_s_max = *std::max_element(speeds.begin(), speeds.end()),
                 .bytes_per_token = std::nullopt,
                 .read_bw_gb_per_s = median(timings.read_bw_gb_per_s),
                 .speedup_vs_dense = std::nullopt};
    if (test.kind == BenchTest::Kind::kDecode) {
      const std::size_t middle = test.depth + test.n_tokens / 2;
      const std::size_t document = subject.has_encoder() ? kDocumentTokens : 0;
      row.bytes_per_token =
          static_cast<double>(model_cost(subject).total.touched_bytes +
                              state_bytes_read(subject, options.session(0).kv_type, middle, document));
    }
    if (dense) row.speedup_vs_dense = row.tokens_per_s / *dense;
    rows.push_back(std::move(row));
  }
}

/// Runs every test with every number of threads.
void run_tests(const Options& options, const std::string& name, DType dtype,
               const std::vector<Contestant>& contestants, std::vector<BenchRow>& rows) {
  const auto all = tests(options);
  auto thread_counts = options.threads;
  if (thread_counts.empty()) thread_counts.push_back(Runtime::default_threads());
  Progress bar(fmt::format("bench {} {}", name, dtype_name(dtype)),
               thread_counts.size() * all.size() * options.repetitions, "repetitions");
  std::size_t done = 0;
  const BandwidthProbe bandwidth;
  for (const unsigned n_threads : thread_counts) {
    Runtime runtime({.n_threads = n_threads});
    std::vector<Session> sessions;
    for (const Contestant& contestant : contestants) {
      sessions.emplace_back(contestant.model, runtime, options.session(context(all)));
      if (contestant.model->has_encoder()) sessions.back().encode(std::vector<TokenId>(kDocumentTokens, 1));
    }
    for (const BenchTest& test : all) {
      const Timings timings =
          measure(sessions, runtime, bandwidth, test, options.repetitions, [&] { bar.update(++done); });
      add_rows(name, dtype, runtime, test, contestants, options, timings, rows);
    }
  }
}

void measure_preset(const Options& options, std::vector<BenchRow>& rows) {
  const auto planned = planned_models(options);
  for (const std::string& dtype_name : options.dtypes) {
    const DType dtype = parse_dtype(dtype_name);
    const auto contestants =
        make_contestants(planned, dtype, options.preset, options.folder, context(tests(options)));
    run_tests(options, options.preset, dtype, contestants, rows);
  }
}

void measure_file(const Options& options, std::vector<BenchRow>& rows) {
  std::vector<Contestant> contestants;
  const auto model = Model::load(options.model);
  warn_about_memory(*model);
  const DType dtype = main_dtype(model->file());
  const std::string name = std::filesystem::path(options.model).filename().string();
  const bool sparse = is_sparse(model->config());
  contestants.push_back({sparse ? "sparse" : "dense", model});
  if (sparse && options.variant != "sparse") {
    auto twin = make_contestants({{"dense", dense_twin(model->config())}}, dtype, name, options.folder,
                                 context(tests(options)));
    contestants.push_back(std::move(twin.front()));
  }
  run_tests(options, name, dtype, contestants, rows);
}

void print(const Options& options, const std::vector<BenchRow>& rows) {
  if (options.format == "json") return write_stdout(bench_json(rows));
  if (options.format == "csv") return write_stdout(bench_csv(rows));
  write_stdout(bench_markdown(rows));
}

void run(const Options& options) {
  static_cast<void>(tests(options));  // a command line without work is refused before any is done
  const Interrupt interrupt;
  for (const unsigned n_threads : options.threads) warn_about_threads(n_threads);
  warn_about_isa(isa_from_environment());
  std::vector<BenchRow> rows;
  try {
    if (options.preset.empty()) {
      measure_file(options, rows);
    } else {
      measure_preset(options, rows);
    }
  } catch (const Error&) {
    if (!rows.empty()) print(options, rows);  // what was measured before an interrupt is not lost
    throw;
  }
  print(options, rows);
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  options->folder = std::filesystem::temp_directory_path().string();
  CLI::App* command =
      app.add_subcommand("bench", "Time prefill and decode, a sparse model and its dense twin in turn");
  auto* source = command->add_option_group("subject", "What to time (one of)");
  CLI::Option* model =
      source->add_option("-m,--model", options->model, "Model file; its twin gets random weights")
          ->type_name("FILE");
  source->add_option("--preset", options->preset, fmt::format("{}", fmt::join(preset_names(), ", ")))
      ->check(CLI::IsMember(preset_names()))
      ->type_name("NAME");
  source->require_option(1);
  command->add_option("--variant", options->variant, "both, sparse or dense")
      ->check(CLI::IsMember({"both", "sparse", "dense"}))
      ->capture_default_str()
      ->type_name("NAME");
  command->add_option("--dtype", options->dtypes, "Weights of a preset: f32, bf16, q8, q4, or several")
      ->delimiter(',')
      ->check(CLI::IsMember(dtype_names()))
      ->excludes(model)
      ->capture_default_str()
      ->type_name("TYPE[,...]");
  command
      ->add_option("-t,--threads", options->threads,
                   "Threads, or several numbers (default: one per physical core)")
      ->delimiter(',')
      ->check(between(1U, kMaxThreads))
      ->type_name("N[,...]");
  command->add_option("-n,--n-gen", options->n_decode, "Tokens decoded per repetition; 0 = no decode test")
      ->capture_default_str()
      ->type_name("N");
  command->add_option("-p,--n-prompt", options->n_prompt, "Tokens of the prefill test; 0 = none")
      ->capture_default_str()
      ->type_name("N");
  command
      ->add_option("-d,--n-depth", options->depths,
                   "Tokens in the context before decoding starts, or several numbers")
      ->delimiter(',')
      ->capture_default_str()
      ->type_name("N[,...]");
  command->add_option("-r,--repetitions", options->repetitions, "Repetitions; the table shows their median")
      ->check(between(std::size_t{1}, std::size_t{10000}))
      ->capture_default_str()
      ->type_name("N");
  add_kv_type(*command, options->kv_type);
  command->add_option("--dir", options->folder, "Folder for the weights of presets and twins")
      ->capture_default_str()
      ->type_name("FOLDER");
  command->add_option("-o,--output", options->format, "md, csv or json")
      ->check(CLI::IsMember({"md", "csv", "json"}))
      ->capture_default_str()
      ->type_name("FORMAT");
  command->add_flag_callback(
      "--json", [options] { options->format = "json"; }, "The same as -o json");
  command->callback([options, &action] { action = [options] { run(*options); }; });
}

}  // namespace terrace::tools
