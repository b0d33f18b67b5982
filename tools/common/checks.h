// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string>

namespace terrace::tools {

/// Accepts a number from `least` to `most`, both included, and so no NaN, which CLI::Range lets through. Adds
/// nothing to the help text: where a range matters to users, the description gives it.
template <class T>
CLI::Validator between(T least, T most) {
  return {[least, most](const std::string& text) {
            T value{};
            const bool fits = CLI::detail::lexical_cast(text, value) && value >= least && value <= most;
            return fits ? std::string()
                        : fmt::format("expected a number from {} to {}, found '{}'", least, most, text);
          },
          ""};
}

}  // namespace terrace::tools
