// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tensor.h"

namespace terrace::bench {

/// The command line of a benchmark program: options of its own, `--name=value`, which it takes one by one,
/// and Google Benchmark's flags, which are what is left.
class CommandLine {
 public:
  CommandLine(int argc, char** argv) : argv_(argv), rest_(argv + 1, argv + argc) {}

  /// The value of an option; of several the last. `values` says in the messages what it may be.
  std::optional<std::string> take(std::string_view name, std::string_view values);
  /// The number of an option; nothing if there is none. Throws Error{kBadArgument}.
  std::optional<unsigned> take_number(std::string_view name, unsigned least, unsigned most);
  /// --threads=N; 0, for all cores, if there is none. Throws Error{kBadArgument}.
  unsigned take_threads();
  /// --dtype=NAME: that one; all if there is none. Throws Error{kBadArgument}.
  std::vector<DType> take_dtypes();

  /// Hands the rest to Google Benchmark, after `defaults`, so that the caller's own flags win. Throws
  /// Error{kBadArgument} for an argument that nobody takes.
  void start_benchmark(const std::vector<std::string>& defaults = {});

  /// As main() got them: the program may be started once more with them.
  char** argv() const noexcept { return argv_; }

 private:
  char** argv_;
  std::vector<std::string> rest_;
  std::vector<std::string> own_;  // "--name=VALUES" of every option asked for
};

/// What main() does: runs `program` and reports what it throws. Returns the exit status.
int run_program(int argc, char** argv, void (*program)(CommandLine&));

}  // namespace terrace::bench
