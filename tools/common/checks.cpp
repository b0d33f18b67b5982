// SPDX-License-Identifier: Apache-2.0
#include "tools/common/checks.h"

#include <filesystem>
#include <system_error>

#include "tools/common/command.h"

namespace terrace::tools {

void refuse_empty_values(CLI::App& app) {
  const CLI::Validator check{[](const std::string& value) {
                               return value.empty() ? std::string("expected a value, found an empty one")
                                                    : std::string();
                             },
                             ""};
  for (CLI::Option* option : app.get_options([](const CLI::Option*) { return true; })) {
    // It changes nothing, but so it comes before the option's own checks.
    if (option->get_items_expected_max() > 0) option->transform(check);
  }
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    refuse_empty_values(*command);
  }
}

void check_output_is_no_input(const NamedFile& output, std::initializer_list<NamedFile> inputs) {
  if (output.path.empty() || output.path == "-") return;
  for (const NamedFile& input : inputs) {
    std::error_code one_is_missing;
    const bool same =
        input.path != "-" && std::filesystem::equivalent(output.path, input.path, one_is_missing);
    if (!same) continue;
    throw UsageError(fmt::format("{}: expected a file that is no input, found '{}', which is that of {}",
                                 output.flag, output.path, input.flag));
  }
}

}  // namespace terrace::tools
