// SPDX-License-Identifier: Apache-2.0
// terrace quantize: a model file with its weights in other dtypes, and how far the new ones are from the old.
#include "models/quantize.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "engine/runtime.h"
#include "engine/weight_file.h"
#include "tools/common/checks.h"
#include "tools/common/command.h"
#include "tools/common/dtype_argument.h"
#include "tools/common/interrupt.h"
#include "tools/common/model_arguments.h"
#include "tools/common/output.h"
#include "tools/common/progress.h"
#include "tools/common/quantize_report.h"
#include "tools/common/warnings.h"

namespace terrace::tools {
namespace {

struct Options {
  std::string in;
  std::string out;
  DTypeArguments dtype;
  unsigned threads = 0;
  bool full = false;
  bool json = false;
};

std::vector<TensorChange> quantize(const Options& options, const WeightFile& in) {
  constexpr std::uint64_t kMega = 1'000'000;
  Progress bar("quantize", in.file_bytes() / kMega, "MB");
  return quantize_model(in, options.out,
                        {.dtype = options.dtype.weight_dtypes(),
                         .n_threads = options.threads > 0 ? options.threads : Runtime::default_threads(),
                         .progress = [&bar](std::uint64_t done, std::uint64_t) {
                           bar.update(done / kMega);
                           return !Interrupt::requested();
                         }});
}

void run(const Options& options) {
  const Interrupt interrupt;
  warn_about_threads(options.threads);
  const WeightFile in = WeightFile::open(options.in);
  warn_about_checksums(in);
  const auto changes = quantize(options, in);
  if (options.json) return write_stdout(quantize_json(changes));
  const std::string report = quantize_text(changes, options.full);
  std::fwrite(report.data(), 1, report.size(), stderr);
}

}  // namespace

void add_quantize(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "quantize", "Write a model file with its weights in other dtypes; report the rounding errors");
  command->add_option("in", options->in, "Model file to read")->required();
  command->add_option("out", options->out, "Model file to write")->required();
  options->dtype.add(*command)->required();
  command->add_option("-t,--threads", options->threads, "Threads (default: one per physical core)")
      ->check(between(1U, kMaxThreads))
      ->type_name("N");
  command->add_flag("--full", options->full, "A line for each tensor, not for all blocks together");
  command->add_flag("--json", options->json, "Print the errors of all tensors as JSON");
  command->callback([options, &action] { action = [options] { run(*options); }; });
}

}  // namespace terrace::tools
