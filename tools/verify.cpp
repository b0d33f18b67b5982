// SPDX-License-Identifier: Apache-2.0
// terrace verify: reads a model file from end to end.
#include "engine/verify.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/isa.h"
#include "models/model.h"
#include "tools/common/command.h"
#include "tools/common/interrupt.h"
#include "tools/common/json_text.h"
#include "tools/common/output.h"
#include "tools/common/progress.h"

namespace terrace::tools {
namespace {

struct Options {
  std::string file;
  bool json = false;
};

std::string as_json(const VerifyReport& report) {
  nlohmann::ordered_json problems = nlohmann::ordered_json::array();
  for (const VerifyProblem& problem : report.problems) {
    problems.push_back({{"tensor", problem.tensor}, {"message", problem.message}});
  }
  const nlohmann::ordered_json result = {{"ok", report.problems.empty()},
                                         {"tensors", report.n_tensors},
                                         {"bytes", report.n_bytes},
                                         {"problems", problems}};
  return json_text(result);
}

std::string as_text(const VerifyReport& report) {
  std::string text;
  for (const VerifyProblem& problem : report.problems) text += problem.tensor + ": " + problem.message + "\n";
  if (report.problems.empty()) {
    text = fmt::format("ok: {} tensors, {} bytes\n", report.n_tensors, report.n_bytes);
  }
  return text;
}

/// "1 of 38 tensors is damaged, 2 of 38 tensors have no checksum".
std::string summary(const VerifyReport& report) {
  std::vector<std::string> parts;
  if (const auto n = report.n_damaged; n > 0) {
    parts.push_back(fmt::format("{} of {} tensors {} damaged", n, report.n_tensors, n == 1 ? "is" : "are"));
  }
  if (const auto n = report.n_damaged_paddings; n > 0) {
    parts.push_back(fmt::format("{} padding{} damaged", n, n == 1 ? " is" : "s are"));
  }
  if (const auto n = report.n_without_checksum; n > 0) {
    parts.push_back(
        fmt::format("{} of {} tensors {} no checksum", n, report.n_tensors, n == 1 ? "has" : "have"));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

void run(const Options& options) {
  const Interrupt interrupt;
  // Loading checks the plan: container, configuration, and that each tensor is the one the configuration
  // needs.
  const auto model = Model::load(options.file, {.isa = Isa::kScalar});
  const WeightFile& file = model->file();
  const VerifyReport report = [&] {
    constexpr std::uint64_t kMega = 1'000'000;
    Progress bar("verify", file.file_bytes() / kMega, "MB");
    return verify(file, [&](std::uint64_t done, std::uint64_t) {
      bar.update(done / kMega);
      return !Interrupt::requested();
    });
  }();
  write_stdout(options.json ? as_json(report) : as_text(report));
  TERRACE_CHECK(report.problems.empty(), kBadFile,
                fmt::format("{}: {}; the first problem: {}: {}", options.file, summary(report),
                            report.problems.front().tensor, report.problems.front().message));
}

}  // namespace

void add_verify(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("verify", "Check every tensor's checksum and values, and the plan of the file");
  command->add_option("file", options->file, "Model file")->required();
  command->add_flag("--json", options->json, "Print the report as JSON");
  command->callback([options, &action] { action = [options] { run(*options); }; });
}

}  // namespace terrace::tools
