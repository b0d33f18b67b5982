// SPDX-License-Identifier: Apache-2.0
// terrace: reads the command line, runs one subcommand, turns whatever it throws into one line and an exit
// status.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <string>

#include "engine/error.h"
#include "engine/isa.h"
#include "tools/common/command.h"
#include "tools/common/output.h"

namespace {

using terrace::Error;

constexpr int kSuccess = 0;
constexpr int kFailure = 1;
constexpr int kUsage = 2;

std::string version_text() {
  std::string isas;
  for (const terrace::Isa isa : terrace::available_isas()) isas += std::string(" ") + terrace::isa_name(isa);
  return fmt::format("terrace {} (instruction sets usable here:{})", TERRACE_VERSION, isas);
}

/// One line, whatever the message holds: scripts and people read the last line of stderr.
int report(const std::string& command, std::string message, int status) {
  std::replace_if(
      message.begin(), message.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
  fmt::print(stderr, "{}: {}\n", command, message);
  return status;
}

int run(const std::string& command, const terrace::tools::Action& action) {
  try {
    action();
    return kSuccess;
  } catch (const terrace::tools::UsageError& error) {
    return report(command, fmt::format("{} ({} --help lists the flags)", error.what(), command), kUsage);
  } catch (const Error& error) {
    return report(command, error.what(), kFailure);
  } catch (const std::bad_alloc&) {
    return report(command, "out of memory", kFailure);
  } catch (const std::exception& error) {
    return report(command, fmt::format("internal error: {}", error.what()), kFailure);
  }
}

bool has_subcommand(const CLI::App& app, const std::string& name) {
  const auto all = app.get_subcommands([](const CLI::App*) { return true; });
  return std::any_of(all.begin(), all.end(),
                     [&](const CLI::App* command) { return command->get_name() == name; });
}

/// Help and version go to stdout, and a full disk under it is an error like any other.
int print_information(const std::string& text) {
  return run("terrace", [&] { terrace::tools::write_stdout(text); });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Terrace: batch-1 decoding of sparse Transformers on the CPU", "terrace"};
  app.require_subcommand(1);
  app.set_version_flag("--version", version_text);
  app.get_formatter()->column_width(34);

  terrace::tools::Action action;
  terrace::tools::add_generate(app, action);
  terrace::tools::add_logits(app, action);
  terrace::tools::add_perplexity(app, action);
  terrace::tools::add_bench(app, action);
  terrace::tools::add_init(app, action);
  terrace::tools::add_inspect(app, action);
  terrace::tools::add_verify(app, action);
  terrace::tools::add_quantize(app, action);
  terrace::tools::add_moefy(app, action);
  terrace::tools::add_tokenize(app, action);
  terrace::tools::add_detokenize(app, action);

  const auto command = [&app] {
    const auto chosen = app.get_subcommands();
    return chosen.empty() ? std::string("terrace") : "terrace " + chosen.front()->get_name();
  };
  try {
    // CLI11 would only say that a subcommand is missing.
    if (argc > 1 && argv[1][0] != '-' && !has_subcommand(app, argv[1])) {
      throw CLI::OptionNotFound(fmt::format("subcommand '{}'", argv[1]));
    }
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    const auto chosen = app.get_subcommands();
    return print_information(chosen.empty() ? app.help() : chosen.front()->help("terrace"));
  } catch (const CLI::CallForVersion& version) {
    return print_information(std::string(version.what()) + "\n");
  } catch (const CLI::Error& error) {
    const char* what_helps = app.get_subcommands().empty() ? "subcommands" : "flags";
    return report(command(), fmt::format("{} ({} --help lists the {})", error.what(), command(), what_helps),
                  kUsage);
  }
  return run(command(), action);
}
