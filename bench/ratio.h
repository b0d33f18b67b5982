// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <benchmark/benchmark.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "engine/bandwidth.h"
#include "engine/isa.h"
#include "engine/runtime.h"
#include "engine/tensor.h"

namespace terrace::bench {

/// What the benchmarks of layers take on their command line besides Google Benchmark's flags.
struct LayerBenchOptions {
  unsigned n_threads = 0;  ///< --threads=N; 0 = all cores
  std::vector<DType> dtypes{DType::kF32, DType::kBf16, DType::kQ8, DType::kQ4};  ///< --dtype=NAME (one)
};

/// Takes our flags out of the command line.
inline LayerBenchOptions take_options(int& argc, char** argv) {
  LayerBenchOptions options;
  const auto is_ours = [&](const std::string& argument) {
    if (argument.rfind("--threads=", 0) == 0) {
      options.n_threads = static_cast<unsigned>(std::stoul(argument.substr(10)));
      return true;
    }
    for (const DType dtype : {DType::kF32, DType::kBf16, DType::kQ8, DType::kQ4}) {
      if (argument != std::string("--dtype=") + dtype_name(dtype)) continue;
      options.dtypes = {dtype};
      return true;
    }
    return false;
  };
  argc = static_cast<int>(std::remove_if(argv + 1, argv + argc, is_ours) - argv);
  argv[argc] = nullptr;
  return options;
}

/// Largest difference of two results relative to the largest value of the second.
inline double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0.0;
  double largest = 1e-30;
  for (std::size_t i = 0; i < b.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return worst / largest;
}

/// Results are checked before anything is timed: a wrong one ends the program.
inline void require(bool holds, const std::string& what) {
  if (holds) return;
  fmt::print(stderr, "wrong result: {}\n", what);
  std::exit(1);
}

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

/// Prints as the console does and keeps the times of every repetition.
class CollectingReporter : public benchmark::ConsoleReporter {
 public:
  CollectingReporter() : ConsoleReporter(OO_Tabular) {}
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type == Run::RT_Iteration && !run.error_occurred) {
        times_[run.run_name.function_name].push_back(run.GetAdjustedRealTime() /
                                                     benchmark::GetTimeUnitMultiplier(run.time_unit));
      }
    }
    std::vector<Run> summary;
    std::copy_if(runs.begin(), runs.end(), std::back_inserter(summary),
                 [](const Run& run) { return run.aggregate_name == "median"; });
    if (!summary.empty()) ConsoleReporter::ReportRuns(summary);
  }
  /// Seconds per call; 0 if it did not run.
  double median(const std::string& name) const {
    const auto found = times_.find(name);
    if (found == times_.end()) return 0.0;
    std::vector<double> times = found->second;
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

 private:
  std::map<std::string, std::vector<double>> times_;
};

/// Runs the registered benchmarks, interleaved at random and repeated, between two measurements of the read
/// bandwidth, and prints each comparison: times, GB/s, share of the bandwidth, ratios.
inline int run_comparisons(int argc, char** argv, Runtime& runtime,
                           const std::vector<Comparison>& comparisons) {
  std::vector<char*> arguments(argv, argv + argc);
  std::string interleave = "--benchmark_enable_random_interleaving=true";
  std::string repeat = "--benchmark_repetitions=9";
  std::string time = "--benchmark_min_time=0.05";
  // Before the caller's own flags, which win.
  arguments.insert(arguments.begin() + 1, {interleave.data(), repeat.data(), time.data()});
  int n = static_cast<int>(arguments.size());
  benchmark::Initialize(&n, arguments.data());

  const BandwidthProbe probe;
  const double before = probe.measure(runtime);
  CollectingReporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  const double after = probe.measure(runtime);
  const double bandwidth = std::max(before, after);

  fmt::print("\nisa {}, {} threads, read bandwidth {:.1f} GB/s before and {:.1f} GB/s after\n",
             isa_name(best_isa()), runtime.n_threads(), before * 1e-9, after * 1e-9);
  const auto line = [&](const Contender& c, double reference) {
    const double seconds = reporter.median(c.name);
    if (seconds == 0.0) return;
    const double rate = static_cast<double>(c.bytes) / seconds;
    fmt::print("  {:<44} {:>10.1f} us", c.name, seconds * 1e6);
    if (c.bytes > 0) {
      fmt::print(" {:>8.1f} MB {:>7.1f} GB/s {:>5.0f} %", static_cast<double>(c.bytes) * 1e-6, rate * 1e-9,
                 100.0 * rate / bandwidth);
    }
    if (reference > 0.0) fmt::print("   {:>6.2f}x as long", seconds / reference);
    fmt::print("\n");
  };
  for (const Comparison& comparison : comparisons) {
    fmt::print("\n");
    line(comparison.subject, 0.0);
    for (const Contender& rival : comparison.rivals) line(rival, reporter.median(comparison.subject.name));
  }
  return 0;
}

/// oneDNN's OpenMP threads would go on spinning after a call and take the cores of what is measured next, and
/// be as many as there are cores instead of --threads. The runtime reads its settings before main, so the
/// program starts itself once more with the right ones.
inline void quiet_openmp(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY")) return;
  ::setenv("OMP_WAIT_POLICY", "passive", 1);
  for (char** argument = argv; *argument; ++argument) {
    const std::string text = *argument;
    if (text.rfind("--threads=", 0) == 0) ::setenv("OMP_NUM_THREADS", text.substr(10).c_str(), 1);
  }
  ::execv("/proc/self/exe", argv);
}

}  // namespace terrace::bench
