// SPDX-License-Identifier: Apache-2.0
#include "bench/command_line.h"

#include <benchmark/benchmark.h>
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <exception>
#include <filesystem>

#include "engine/error.h"
#include "engine/quote.h"

namespace terrace::bench {
namespace {

constexpr unsigned kMostThreads = 1024;

}  // namespace

std::optional<std::string> CommandLine::take(std::string_view name, std::string_view values) {
  const std::string flag = fmt::format("--{}=", name);
  own_.push_back(flag + std::string(values));
  std::optional<std::string> value;
  std::erase_if(rest_, [&](const std::string& argument) {
    if (!argument.starts_with(flag)) return false;
    value = argument.substr(flag.size());
    return true;
  });
  return value;
}

std::optional<unsigned> CommandLine::take_number(std::string_view name, unsigned least, unsigned most) {
  const std::optional<std::string> text = take(name, "N");
  if (!text) return std::nullopt;
  unsigned n = 0;
  const char* const end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, n);
  TERRACE_CHECK(
      error == std::errc() && stop == end && n >= least && n <= most, kBadArgument,
      fmt::format("--{}: expected a number from {} to {}, found {}", name, least, most, quote_text(*text)));
  return n;
}

unsigned CommandLine::take_threads() { return take_number("threads", 0, kMostThreads).value_or(0); }

std::vector<DType> CommandLine::take_dtypes() {
  const std::vector<DType> all{DType::kF32, DType::kBf16, DType::kQ8, DType::kQ4};
  const std::optional<std::string> text = take("dtype", "f32|bf16|q8|q4");
  if (!text) return all;
  const auto found =
      std::find_if(all.begin(), all.end(), [&](DType dtype) { return *text == dtype_name(dtype); });
  TERRACE_CHECK(found != all.end(), kBadArgument,
                fmt::format("--dtype: expected f32, bf16, q8 or q4, found {}", quote_text(*text)));
  return {*found};
}

void CommandLine::start_benchmark(const std::vector<std::string>& defaults) {
  const std::string own = own_.empty() ? "" : fmt::format("{} and ", fmt::join(own_, ", "));
  if (std::find(rest_.begin(), rest_.end(), "--help") != rest_.end()) {
    fmt::print("This program takes {}the following flags.\n", own);
  }
  // Google Benchmark keeps pointers into the arguments.
  static std::vector<std::string> texts;
  texts = {argv_[0]};
  texts.insert(texts.end(), defaults.begin(), defaults.end());
  texts.insert(texts.end(), rest_.begin(), rest_.end());
  std::vector<char*> arguments;
  for (std::string& text : texts) arguments.push_back(text.data());
  arguments.push_back(nullptr);
  int n = static_cast<int>(texts.size());
  benchmark::Initialize(&n, arguments.data());
  if (n < 2) return;
  throw Error(ErrorCode::kBadArgument,
              fmt::format("unknown argument {}: expected {}Google Benchmark's flags (--help)",
                          quote_text(arguments[1]), own));
}

int run_program(int argc, char** argv, void (*program)(CommandLine&)) {
  try {
    CommandLine line(argc, argv);
    program(line);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", std::filesystem::path(argv[0]).filename().string(), error.what());
    return 1;
  }
}

}  // namespace terrace::bench
