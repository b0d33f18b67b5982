// SPDX-License-Identifier: Apache-2.0
// terrace bench: speed of a sparse model beside its dense twin, in one run. What it does is in
// benchmark/run.h.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "engine/atomic_file.h"
#include "engine/error.h"
#include "engine/isa.h"
#include "engine/runtime.h"
#include "tools/benchmark/figure.h"
#include "tools/benchmark/run.h"
#include "tools/benchmark/tables.h"
#include "tools/common/checks.h"
#include "tools/common/command.h"
#include "tools/common/dtype_argument.h"
#include "tools/common/interrupt.h"
#include "tools/common/model_arguments.h"
#include "tools/common/output.h"
#include "tools/common/warnings.h"

namespace terrace::tools {
namespace {

/// More are a mistake in writing.
constexpr std::size_t kMaxBenchTokens = std::size_t{1} << 28;

struct Options {
  BenchOptions bench;
  std::string table1;  ///< empty, or the name of a rule
  std::string sweep;   ///< empty, or its text
  bool profile = false;
  std::string format = "md";
  std::string report;  ///< path without extension; empty = none

  bool details() const noexcept { return bench.profile || bench.sweep || bench.blocks > 0; }
};

constexpr const char* kReportFormats[] = {"md", "csv", "json", "svg"};

std::string report_file(const Options& options, const char* format) { return options.report + "." + format; }

/// Whether the report can be written is known before anything is measured. Throws UsageError, Error{kIo}.
void check_report(const Options& options) {
  if (options.report.empty()) return;
  const std::filesystem::path path(options.report);
  const std::string stem = path.filename().string();
  if (stem.empty() || stem == "." || stem == "..") {
    throw UsageError(fmt::format("--report: expected a path that ends in a name, found {}", options.report));
  }
  std::error_code ignored;
  if (path.has_parent_path() && !std::filesystem::is_directory(path.parent_path(), ignored)) {
    throw UsageError(
        fmt::format("--report: expected a path in an existing folder, found {}", options.report));
  }
  for (const char* format : kReportFormats) {
    check_output_is_no_input({"--report", report_file(options, format)}, {{"-m", options.bench.model}});
    const AtomicFile file(report_file(options, format), 0);  // gone again without a trace
  }
}

/// Turns what the flags said into what is to be done.
void interpret(Options& options, bool n_prompt_given) {
  BenchOptions& bench = options.bench;
  if (!options.table1.empty()) {
    bench.table1 = options.table1 == "layers" ? Table1Rule::kLayers : Table1Rule::kPreset;
  }
  if (!options.sweep.empty()) bench.sweep = parse_sweep(options.sweep);
  // The time per block comes from a profile; so does what follows from it for blocks left out.
  bench.profile = options.profile || bench.table1 || bench.blocks > 0;
  if ((bench.table1 || bench.sweep) && !n_prompt_given) bench.n_prompt = 0;
  if (bench.n_decode > 0) return;
  const bool draws = options.format == "svg" || !options.report.empty();
  const std::string flag = options.profile ? "--profile"
                           : bench.table1  ? "--table1"
                           : bench.sweep   ? "--sweep"
                           : bench.blocks  ? "--blocks"
                           : draws         ? "a chart"
                                           : "";
  if (!flag.empty())
    throw UsageError(fmt::format("-n: {} is about decoding; expected tokens, found 0", flag));
}

std::string markdown(const Options& options, const std::vector<BenchRow>& rows) {
  std::string text = options.bench.table1 ? table1(rows) : speed_table(rows);
  if (options.bench.blocks > 0 && !options.bench.table1) text += "\n" + table1(rows);
  if (options.profile) text += "\n" + profile_table(rows);
  return text;
}

std::string rendered(const Options& options, const std::string& format, const std::vector<BenchRow>& rows) {
  if (format == "json") return bench_json(rows, options.details());
  if (format == "csv") return bench_csv(rows, options.details());
  if (format == "svg") return bench_svg(rows, options.bench.sweep);
  return markdown(options, rows);
}

void print(const Options& options, const std::vector<BenchRow>& rows) {
  write_stdout(rendered(options, options.format, rows));
  if (options.report.empty()) return;
  for (const char* format : kReportFormats) {
    write_file(report_file(options, format), rendered(options, format, rows));
  }
}

void run(Options options, bool n_prompt_given) {
  interpret(options, n_prompt_given);
  check_report(options);
  const Interrupt interrupt;
  for (const unsigned n_threads : options.bench.threads) warn_about_threads(n_threads);
  warn_about_isa(isa_from_environment());
  std::vector<BenchRow> rows;
  try {
    run_bench(options.bench, rows);
  } catch (const Error&) {
    if (!rows.empty()) print(options, rows);  // what was measured before an interrupt is not lost
    throw;
  }
  print(options, rows);
}

/// What to time.
void add_subject(CLI::App& command, Options& options) {
  BenchOptions& bench = options.bench;
  auto* source = command.add_option_group("subject", "What to time (one of)");
  CLI::Option* model =
      source->add_option("-m,--model", bench.model, "Model file; its twin gets random weights")
          ->type_name("FILE");
  source->add_option("--preset", bench.preset, fmt::format("{}", fmt::join(preset_names(), ", ")))
      ->check(CLI::IsMember(preset_names()))
      ->type_name("NAME");
  source->require_option(1);
  CLI::Option* variant = command.add_option("--variant", bench.variant, "both, sparse or dense")
                             ->check(CLI::IsMember({"both", "sparse", "dense"}))
                             ->capture_default_str()
                             ->type_name("NAME");
  CLI::Option* attention =
      command
          .add_option("--attention", bench.attention,
                      "Of a preset with LSH attention: lsh, exact (the same models with attention to every "
                      "position), or both")
          ->check(CLI::IsMember({"lsh", "exact", "both"}))
          ->excludes(model)
          ->capture_default_str()
          ->type_name("KIND");
  CLI::Option* table1 =
      command
          .add_flag(
              "--table1{preset}", options.table1,
              "The paper's Table 1 for a preset: dense, +FF, +QKV, +FF+QKV, +FF+QKV+output, per token and "
              "per block. --table1 or --table1=preset: where attention is sparse, d_ff grows to the sparse "
              "preset's to make up for parameters, as in the paper; --table1=layers: only the named layers "
              "differ from dense")
          ->check(CLI::IsMember({"preset", "layers"}))
          ->excludes(model)
          ->excludes(variant)
          ->excludes(attention);
  command
      .add_option(
          "--sweep", options.sweep,
          fmt::format("The dense twin of a preset and its sparse variant with each of several values of: {}",
                      sweep_parameters_help()))
      ->excludes(model)
      ->excludes(variant)
      ->excludes(table1)
      ->excludes(attention)
      ->type_name("PARAMETER=N[,...]");
  command
      .add_option("--blocks", bench.blocks,
                  "Time only the first N blocks of every model, at full width (for presets larger than the "
                  "memory); what all blocks would take follows from the time per block")
      ->check(between(1U, 4096U))
      ->excludes(model)
      ->type_name("N");
  add_preset_dtypes(command, bench.dtypes)->excludes(model);
  command.add_option("--dir", bench.folder, "Folder for the weights of presets and twins")
      ->capture_default_str()
      ->type_name("FOLDER");
}

/// How to time it.
CLI::Option* add_tests(CLI::App& command, Options& options) {
  BenchOptions& bench = options.bench;
  const CLI::Validator n_tokens = between(std::size_t{0}, kMaxBenchTokens);
  add_thread_counts(command, bench.threads);
  command.add_option("-n,--n-gen", bench.n_decode, "Tokens decoded per repetition; 0 = no decode test")
      ->check(n_tokens)
      ->capture_default_str()
      ->type_name("N");
  CLI::Option* n_prompt =
      command
          .add_option("-p,--n-prompt", bench.n_prompt,
                      "Tokens of the prefill test; 0 = none, as with --table1 and --sweep")
          ->check(n_tokens)
          ->capture_default_str()
          ->type_name("N");
  command
      .add_option("-d,--n-depth", bench.depths,
                  "Tokens in the context before decoding starts, or several numbers")
      ->delimiter(',')
      ->check(n_tokens)
      ->capture_default_str()
      ->type_name("N[,...]");
  command.add_option("-r,--repetitions", bench.repetitions, "Repetitions; the table shows their median")
      ->check(between(std::size_t{1}, std::size_t{10000}))
      ->capture_default_str()
      ->type_name("N");
  add_kv_type(command, options.bench.kv_type);
  command.add_flag("--profile", options.profile,
                   "Also show where a token's time goes, by layer kind, and what synchronisation takes "
                   "(decode tests, in repetitions of their own)");
  return n_prompt;
}

void add_output(CLI::App& command, Options& options) {
  command
      .add_option("-o,--output", options.format,
                  "md, csv, json, or svg: a chart of the decode tests against --sweep, -d or -t, else bars")
      ->check(CLI::IsMember({"md", "csv", "json", "svg"}))
      ->capture_default_str()
      ->type_name("FORMAT");
  command.add_flag_callback(
      "--json", [&options] { options.format = "json"; }, "The same as -o json");
  command.add_option("--report", options.report, "Also write PATH.md, PATH.csv, PATH.json and PATH.svg")
      ->type_name("PATH");
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  options->bench.folder = std::filesystem::temp_directory_path().string();
  CLI::App* command =
      app.add_subcommand("bench", "Time prefill and decode, a sparse model and its dense twin in turn");
  add_subject(*command, *options);
  const CLI::Option* n_prompt = add_tests(*command, *options);
  add_output(*command, *options);
  command->callback([options, n_prompt, &action] {
    action = [options, given = n_prompt->count() > 0] { run(*options, given); };
  });
}

}  // namespace terrace::tools
