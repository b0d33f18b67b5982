// SPDX-License-Identifier: Apache-2.0
#include "engine/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "engine/exec.h"
#include "engine/isa.h"
#include "engine/kernels/dense_kernels.h"

namespace terrace {

BandwidthProbe::BandwidthProbe(std::size_t bytes)
    : buffer_(bytes / kCacheLine * kCacheLine, "the bandwidth probe") {
  // Untouched pages all map to one page of zeros, which would be read from cache.
  std::memset(buffer_.data(), 1, buffer_.bytes());
}

double BandwidthProbe::measure(Runtime& runtime, unsigned repetitions) const {
  using Clock = std::chrono::steady_clock;
  const DenseKernels& kernels = dense_kernels(best_isa());
  const ThreadTeam::Region region(runtime.team());
  Workspace no_scratch;
  const Exec exec{runtime.team(), no_scratch};
  constexpr std::size_t kBlock = 4096;
  const std::size_t n_blocks = buffer_.bytes() / kBlock;
  std::atomic<std::uint64_t> sum{0};
  double best = 0;
  for (unsigned i = 0; i < repetitions; ++i) {
    const auto start = Clock::now();
    exec.for_range(n_blocks, 1, kBlock, [&](std::size_t begin, std::size_t end) {
      sum.fetch_add(kernels.read(buffer_.data() + begin * kBlock, (end - begin) * kBlock),
                    std::memory_order_relaxed);
    });
    const std::chrono::duration<double> elapsed = Clock::now() - start;
    best = std::max(best, static_cast<double>(n_blocks * kBlock) / elapsed.count());
  }
  return best;
}

double measure_read_bandwidth(Runtime& runtime) { return BandwidthProbe().measure(runtime); }

}  // namespace terrace
