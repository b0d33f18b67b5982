// SPDX-License-Identifier: Apache-2.0
#include "engine/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "engine/ceil_div.h"
#include "engine/exec.h"
#include "engine/isa.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/prefetch.h"

namespace terrace {
namespace {

/// Bytes per second of the fastest pass, each of which reads `bytes`.
template <class Pass>
double fastest(std::size_t bytes, unsigned repetitions, Pass pass) {
  using Clock = std::chrono::steady_clock;
  double best = 0;
  for (unsigned i = 0; i < repetitions; ++i) {
    const auto start = Clock::now();
    pass();
    const std::chrono::duration<double> elapsed = Clock::now() - start;
    best = std::max(best, static_cast<double>(bytes) / elapsed.count());
  }
  return best;
}

/// Waits for the lines of n bytes. (The kernel that reads runs of memory would prefetch what follows them.)
std::uint64_t touch(const std::byte* data, std::size_t n) noexcept {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < n; i += kCacheLine) sum += std::to_integer<std::uint64_t>(data[i]);
  return sum;
}

}  // namespace

BandwidthProbe::BandwidthProbe(std::size_t bytes)
    : buffer_(bytes / kCacheLine * kCacheLine, "the bandwidth probe") {
  // Untouched pages all map to one page of zeros, which would be read from cache.
  std::memset(buffer_.data(), 1, buffer_.bytes());
}

double BandwidthProbe::measure(Runtime& runtime, unsigned repetitions) const {
  const DenseKernels& kernels = dense_kernels(best_isa());
  const ThreadTeam::Region region(runtime.team());
  Workspace no_scratch;
  const Exec exec{runtime.team(), no_scratch};
  constexpr std::size_t kBlock = 4096;
  const std::size_t n_blocks = buffer_.bytes() / kBlock;
  std::atomic<std::uint64_t> sum{0};
  return fastest(n_blocks * kBlock, repetitions, [&] {
    exec.for_range(n_blocks, 1, kBlock, [&](std::size_t begin, std::size_t end) {
      sum.fetch_add(kernels.read(buffer_.data() + begin * kBlock, (end - begin) * kBlock),
                    std::memory_order_relaxed);
    });
  });
}

double BandwidthProbe::measure_scattered(Runtime& runtime, const ScatteredRows& rows,
                                         unsigned repetitions) const {
  const std::size_t row_bytes = ceil_div(rows.row_bytes, kCacheLine) * kCacheLine;
  const std::size_t n_rows =
      row_bytes > 0 ? std::min<std::size_t>(rows.bytes, buffer_.bytes()) / row_bytes : 0;
  if (n_rows == 0) return measure(runtime, repetitions);
  constexpr std::size_t kReads = 16384, kAhead = 24;
  const ThreadTeam::Region region(runtime.team());
  std::atomic<std::uint64_t> sum{0};
  std::uint64_t first = 0;
  return fastest(kReads * row_bytes, repetitions, [&] {
    const auto n_threads = runtime.n_threads();
    runtime.team().run(n_threads, [&](std::uint32_t chunk) {
      const auto row = [&](std::uint64_t i) {
        // Steps of the golden ratio of 2^64: spread out, and no two alike.
        const std::uint64_t spread = (first + i) * 0x9e3779b97f4a7c15U;
        return buffer_.data() + (spread >> 32) * n_rows / (std::uint64_t{1} << 32) * row_bytes;
      };
      const std::size_t begin = kReads * chunk / n_threads, end = kReads * (chunk + 1) / n_threads;
      std::uint64_t of_chunk = 0;
      for (std::size_t i = begin; i < end + kAhead; ++i) {
        if (i < end) prefetch_bytes(row(i), row_bytes);
        if (i >= begin + kAhead) of_chunk += touch(row(i - kAhead), row_bytes);
      }
      sum.fetch_add(of_chunk, std::memory_order_relaxed);
    });
    first += kReads;  // others, not in any cache yet
  });
}

double measure_read_bandwidth(Runtime& runtime) { return BandwidthProbe().measure(runtime); }

}  // namespace terrace
