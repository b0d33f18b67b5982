// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <concepts>
#include <string>
#include <string_view>

namespace terrace::tools {

/// Reads a whole text as a number. Integers are decimal: CLI11 takes a leading zero for octal and one that is
/// too large for the largest.
template <class T>
bool parse_number(const std::string& text, T& value) {
  if constexpr (std::integral<T>) {
    const std::string_view digits = std::string_view(text).substr(text.starts_with('-') ? 1 : 0);
    if (digits.size() > 1 && digits.front() == '0') return false;
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, value);
    return error == std::errc() && rest == end;
  } else {
    return CLI::detail::lexical_cast(text, value);
  }
}

/// Accepts a number from `least` to `most`, both included, and so no NaN, which CLI::Range lets through. Adds
/// nothing to the help text: where a range matters to users, the description gives it.
template <class T>
CLI::Validator between(T least, T most) {
  return {[least, most](const std::string& text) {
            T value{};
            const bool fits = parse_number(text, value) && value >= least && value <= most;
            const char* kind = std::integral<T> ? "a decimal number" : "a number";
            return fits ? std::string()
                        : fmt::format("expected {} from {} to {}, found '{}'", kind, least, most, text);
          },
          ""};
}

/// From now on no flag or argument of `app` and its subcommands takes an empty value: it comes from a shell
/// variable that is not set.
void refuse_empty_values(CLI::App& app);

/// A file of the command line. An empty path is a flag that was not given, "-" a standard stream.
struct NamedFile {
  std::string flag;
  std::string path;
};

/// Throws UsageError where the output is one of the inputs, under whatever name: writing it would destroy
/// what was read.
void check_output_is_no_input(const NamedFile& output, std::initializer_list<NamedFile> inputs);

}  // namespace terrace::tools
