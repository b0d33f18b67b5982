// SPDX-License-Identifier: Apache-2.0
// terrace: reads the command line, runs one subcommand, turns whatever it throws into one line and an exit
// status.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <string_view>

#include "engine/error.h"
#include "engine/isa.h"
#include "tools/common/checks.h"
#include "tools/common/command.h"
#include "tools/common/encode_text.h"
#include "tools/common/output.h"
#include "tools/common/standard_streams.h"

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
  terrace::tools::write_stderr(fmt::format("{}: {}\n", command, message));
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

/// Whether `name` is a flag of the subcommand or of one of its groups, with a value.
bool takes_value(const CLI::App& command, const std::string& name) {
  const CLI::Option* option = command.get_option_no_throw(name);
  return option != nullptr && option->get_items_expected_max() > 0;
}

/// What CLI11 reports less clearly, or not at all.
void check_words(const CLI::App& app, int argc, char** argv) {
  if (argc < 2) return;
  const std::string first = argv[1];
  if (!first.starts_with('-')) {
    if (!has_subcommand(app, first)) throw CLI::OptionNotFound(fmt::format("subcommand '{}'", first));
  } else if (app.get_option_no_throw(first) == nullptr) {
    throw CLI::OptionNotFound(fmt::format("flag '{}'", first));
  } else {
    return;
  }
  // Of "--flag=" it takes the next word for the value.
  for (int i = 2; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (!word.starts_with("--") || !word.ends_with('=')) continue;
    const std::string name(word.substr(0, word.size() - 1));
    if (takes_value(*app.get_subcommand(first), name)) {
      throw CLI::ValidationError(name, "expected a value, found an empty one");
    }
  }
}

/// Help and version go to stdout, and a full disk under it is an error like any other.
int print_information(const std::string& text) {
  return run("terrace", [&] { terrace::tools::write_stdout(text); });
}

}  // namespace

int main(int argc, char** argv) {
  terrace::tools::prepare_standard_streams();
  CLI::App app{"Terrace: batch-1 decoding of sparse Transformers on the CPU", "terrace"};
  app.require_subcommand(1);
  app.set_version_flag("--version", version_text);
  app.get_formatter()->column_width(34);

  terrace::tools::Action action;
  terrace::tools::add_generate(app, action);
  terrace::tools::add_logits(app, action);
  terrace::tools::add_perplexity(app, action);
  terrace::tools::add_bench(app, action);
  terrace::tools::add_plan(app, action);
  terrace::tools::add_init(app, action);
  terrace::tools::add_inspect(app, action);
  terrace::tools::add_verify(app, action);
  terrace::tools::add_quantize(app, action);
  terrace::tools::add_moefy(app, action);
  terrace::tools::add_tokenize(app, action);
  terrace::tools::add_detokenize(app, action);
  terrace::tools::refuse_empty_values(app);

  const auto command = [&app] {
    const auto chosen = app.get_subcommands();
    return chosen.empty() ? std::string("terrace") : "terrace " + chosen.front()->get_name();
  };
  try {
    check_words(app, argc, argv);
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
  const int status = run(command(), action);
  if (terrace::tools::tokenizer_left_running()) std::_Exit(status);  // stdout is flushed after each text
  return status;
}
