// SPDX-License-Identifier: Apache-2.0
// terrace quantize: a model file with its weights in another dtype.
#include "models/quantize.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>

#include "engine/runtime.h"
#include "engine/weight_file.h"
#include "tools/common/checks.h"
#include "tools/common/command.h"
#include "tools/common/dtype_argument.h"
#include "tools/common/interrupt.h"
#include "tools/common/model_arguments.h"
#include "tools/common/progress.h"

namespace terrace::tools {
namespace {

struct Options {
  std::string in;
  std::string out;
  std::string dtype;
  unsigned threads = 0;
};

void run(const Options& options) {
  const Interrupt interrupt;
  const WeightFile in = WeightFile::open(options.in);
  constexpr std::uint64_t kMega = 1'000'000;
  Progress bar("quantize", in.file_bytes() / kMega, "MB");
  quantize_model(in, options.out,
                 {.dtype = parse_dtype(options.dtype),
                  .n_threads = options.threads > 0 ? options.threads : Runtime::default_threads(),
                  .progress = [&bar](std::uint64_t done, std::uint64_t) {
                    bar.update(done / kMega);
                    return !Interrupt::requested();
                  }});
}

}  // namespace

void add_quantize(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("quantize", "Write a model file with its weights in another dtype");
  command->add_option("in", options->in, "Model file to read")->required();
  command->add_option("out", options->out, "Model file to write")->required();
  add_dtype(*command, options->dtype)->required();
  command->add_option("-t,--threads", options->threads, "Threads (default: one per physical core)")
      ->check(between(1U, kMaxThreads))
      ->type_name("N");
  command->callback([options, &action] { action = [options] { run(*options); }; });
}

}  // namespace terrace::tools
