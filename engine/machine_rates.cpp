// SPDX-License-Identifier: Apache-2.0
#include "engine/machine_rates.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
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

}  // namespace

ComputeRates measure_compute_rates(Runtime& runtime, DType dtype) {
  const ThreadTeam::Region region(runtime.team());
  return {multiply_adds_per_s(runtime, dtype, 1), multiply_adds_per_s(runtime, dtype, kModules),
          seconds_per_phase(runtime)};
}

MachineRates measure_machine_rates(Runtime& runtime, DType dtype, std::uint64_t weight_bytes) {
  MachineRates rates{.compute = measure_compute_rates(runtime, dtype)};
  rates.state_bytes_per_s = BandwidthProbe().measure(runtime);
  constexpr std::uint64_t kLeast = std::uint64_t{64} << 10;  // a pass of less measures the phase
  rates.weight_bytes_per_s = weight_bytes < kOwnProbeBytes
                                 ? BandwidthProbe(std::max(weight_bytes, kLeast)).measure(runtime)
                                 : rates.state_bytes_per_s;
  return rates;
}

}  // namespace terrace
