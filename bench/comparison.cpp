// SPDX-License-Identifier: Apache-2.0
#include "bench/comparison.h"

#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "bench/rotation.h"
#include "engine/bandwidth.h"
#include "engine/isa.h"

namespace terrace::bench {
namespace {

/// Whether a run was given up: Google Benchmark 1.8 has another member for that.
template <class Run>
bool was_skipped(const Run& run) {
  if constexpr (requires { run.skipped; }) {
    return static_cast<bool>(run.skipped);
  } else {
    return run.error_occurred;
  }
}

/// Prints the medians as the console does and keeps the times of every repetition.
class CollectingReporter : public benchmark::ConsoleReporter {
 public:
  CollectingReporter() : ConsoleReporter(OO_Tabular) {}
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type == Run::RT_Iteration && !was_skipped(run)) {
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

/// Nothing for a contender that did not run. `reference`: seconds of what it is compared with; 0: nothing.
void print(const Contender& contender, double seconds, double reference, double bandwidth) {
  if (seconds == 0.0) return;
  fmt::print("  {:<44} {:>10.1f} us", contender.name, seconds * 1e6);
  if (contender.bytes > 0) {
    const double rate = static_cast<double>(contender.bytes) / seconds;
    fmt::print(" {:>8.1f} MB {:>7.1f} GB/s {:>5.0f} %", static_cast<double>(contender.bytes) * 1e-6,
               rate * 1e-9, 100.0 * rate / bandwidth);
  }
  if (reference > 0.0) fmt::print("   {:>6.2f}x as long", seconds / reference);
  fmt::print("\n");
}

}  // namespace

void start_comparisons(CommandLine& line) {
  line.start_benchmark({"--benchmark_enable_random_interleaving=true", "--benchmark_repetitions=9",
                        "--benchmark_min_time=0.05"});
}

void run_comparisons(Runtime& runtime, const std::vector<Comparison>& comparisons) {
  const BandwidthProbe probe(bytes_in_rotation());
  const double before = probe.measure(runtime);
  CollectingReporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  const double after = probe.measure(runtime);
  const double bandwidth = std::max(before, after);

  fmt::print(
      "\nisa {}, {} threads, last-level cache {:.0f} MB, read bandwidth {:.1f} GB/s before and {:.1f} GB/s "
      "after\n",
      isa_name(isa_from_environment()), runtime.n_threads(),
      static_cast<double>(last_level_cache_bytes()) * 1e-6, before * 1e-9, after * 1e-9);
  for (const Comparison& comparison : comparisons) {
    const auto ran = [&](const Contender& contender) { return reporter.median(contender.name) > 0.0; };
    if (!ran(comparison.subject) && std::none_of(comparison.rivals.begin(), comparison.rivals.end(), ran))
      continue;
    fmt::print("\n");
    const double subject = reporter.median(comparison.subject.name);
    print(comparison.subject, subject, 0.0, bandwidth);
    for (const Contender& rival : comparison.rivals) {
      print(rival, reporter.median(rival.name), subject, bandwidth);
    }
  }
}

}  // namespace terrace::bench
