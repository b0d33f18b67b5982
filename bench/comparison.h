// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "bench/command_line.h"
#include "engine/runtime.h"

namespace terrace::bench {

/// One figure of a comparison: a benchmark by name, and what it reads.
struct Contender {
  std::string name;
  std::size_t bytes = 0;  ///< weights read per call; 0: not what bounds it
};

/// A contender and what it is compared with, all measured in one interleaved run.
struct Comparison {
  Contender subject;
  std::vector<Contender> rivals;
};

/// Starts Google Benchmark with the rest of the command line: repeated and interleaved at random, unless it
/// says otherwise. Throws Error{kBadArgument} for an argument that nobody takes; call it before the work.
void start_comparisons(CommandLine& line);

/// Runs the registered benchmarks between two measurements of the read bandwidth, and prints each comparison:
/// times, GB/s, share of the bandwidth, ratios.
void run_comparisons(Runtime& runtime, const std::vector<Comparison>& comparisons);

}  // namespace terrace::bench
