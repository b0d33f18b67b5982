// SPDX-License-Identifier: Apache-2.0
#include "engine/machine_rates.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "engine/bandwidth.h"
#include "engine/exec.h"
#include "engine/isa.h"
#include "engine/linear.h"
#include "engine/memory.h"

namespace terrace {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kLeastCalls = 3, kMostCalls = 20;
constexpr double kEnoughSeconds = 0.03;

/// Seconds of the fastest of some calls: a neighbour can only slow one down. Slow kernels get fewer.
template <class F>
double fastest(F&& call) {
  double best = std::numeric_limits<double>::max();
  double all = 0;
  for (int i = 0; i < kMostCalls && (i < kLeastCalls || all < kEnoughSeconds); ++i) {
    const auto start = Clock::now();
    call();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, seconds);
    all += seconds;
  }
  return best;
}

/// Rows that a layer of modules makes of a token.
constexpr std::size_t kModules = 16;

double multiply_adds_per_s(Runtime& runtime, DType dtype, std::size_t n_rows) {
  constexpr std::size_t kColumns = 1024;
  constexpr std::size_t kBytes = std::size_t{128} << 10;  // in any L2, beside what else is there
  constexpr std::uint32_t kPasses = 64;
  const std::size_t rows = kBytes / row_bytes(dtype, kColumns);
  // Values do not matter to the speed, but for denormals, which these bytes are not in any dtype.
  const VirtualBuffer data(kBytes, "the multiply-add probe");
  const VirtualBuffer scales(rows * row_scale_bytes(dtype, kColumns) + 1, "the multiply-add probe");
  std::memset(data.data(), 1, data.bytes());
  const WeightView weights{data.data(), scales.data(), rows, kColumns, kColumns, dtype};

  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  const std::vector<float> input(n_rows * kColumns, 1.0F);
  const unsigned n_threads = runtime.n_threads();
  std::vector<float> results(n_threads * n_rows * rows);
  Workspace ws(std::size_t{1} << 20);
  Exec exec{runtime.team(), ws};
  PreparedRows x = PreparedRows::unpacked(exec, kernels, dtype, {input.data(), n_rows, kColumns, kColumns});
  x.pack(exec, kernels, module_packs_for(kernels, dtype, n_rows));
  const double seconds = fastest([&] {
    runtime.team().run(n_threads, [&](std::uint32_t chunk) {
      for (std::uint32_t pass = 0; pass < kPasses; ++pass) {
        dot_rows(kernels, weights, 0, rows, x, results.data() + chunk * n_rows * rows, rows);
      }
    });
  });
  return static_cast<double>(n_threads) * kPasses * static_cast<double>(n_rows * rows * kColumns) / seconds;
}

double seconds_per_phase(Runtime& runtime) {
  constexpr int kPhases = 1000;
  return fastest([&] {
           for (int i = 0; i < kPhases; ++i) runtime.team().run(runtime.n_threads(), [](std::uint32_t) {});
         }) /
         kPhases;
}

ComputeRates compute_rates(Runtime& runtime, DType dtype) {
  const ThreadTeam::Region region(runtime.team());
  return {multiply_adds_per_s(runtime, dtype, 1), multiply_adds_per_s(runtime, dtype, kModules)};
}

}  // namespace

void MachineRates::set(const ReadRates& read) noexcept {
  team.weight_bytes_per_s = read.team;
  leader.weight_bytes_per_s = read.leader;
  scattered_bytes_per_s = read.scattered;
}

ReadRates measure_read_rates(Runtime& runtime, const BandwidthProbe& weights, const BandwidthProbe& memory,
                             const ScatteredRows& rows) {
  const double scattered = memory.measure_scattered(runtime, rows);
  const double team = weights.measure(runtime);
  if (runtime.n_threads() == 1) return {team, team, scattered};
  Runtime leader({.n_threads = 1});
  return {team, weights.measure(leader), scattered};
}

MachineRates measure_compute_rates(Runtime& runtime, DType dtype) {
  MachineRates rates;
  rates.team.compute = compute_rates(runtime, dtype);
  if (runtime.n_threads() == 1) {
    rates.leader = rates.team;
    return rates;
  }
  Runtime leader({.n_threads = 1});
  rates.leader.compute = compute_rates(leader, dtype);
  const ThreadTeam::Region region(runtime.team());
  rates.seconds_per_phase = seconds_per_phase(runtime);
  return rates;
}

MachineRates measure_machine_rates(Runtime& runtime, DType dtype, std::uint64_t weight_bytes,
                                   const ScatteredRows& rows) {
  MachineRates rates = measure_compute_rates(runtime, dtype);
  const BandwidthProbe memory;
  constexpr std::uint64_t kLeast = std::uint64_t{64} << 10;  // a pass of less measures the phase
  std::optional<BandwidthProbe> own;
  if (weight_bytes < kOwnProbeBytes) own.emplace(std::max(weight_bytes, kLeast));
  rates.set(measure_read_rates(runtime, own ? *own : memory, memory, rows));
  rates.state_bytes_per_s = own ? memory.measure(runtime) : rates.team.weight_bytes_per_s;
  return rates;
}

}  // namespace terrace
