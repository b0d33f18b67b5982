// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

#include "engine/error.h"
#include "engine/memory.h"
#include "engine/tensor.h"

namespace terrace {

/// Prefetches the cache lines of n bytes, for reading, into the L2 cache: a first-level cache can wait for
/// few lines at a time.
inline void prefetch_bytes(const void* data, std::size_t n) noexcept {
  constexpr int kRead = 0;
  constexpr int kIntoL2 = 2;
  const auto* const p = static_cast<const char*>(data);
  for (std::size_t i = 0; i < n; i += kCacheLine) __builtin_prefetch(p + i, kRead, kIntoL2);
}

/// Small weights of coming phases, for a phase that is bound by arithmetic to prefetch meanwhile. Seen as one
/// run of bytes: a thread prefetches the share that it will read, a little at a time, because a core waits
/// for few lines at once.
class UpcomingWeights {
 public:
  /// More than this in all does not stay in an L2 cache beside everything else: nothing is prefetched.
  static constexpr std::size_t kMostBytes = std::size_t{1} << 19;
  static constexpr std::size_t kMostWeights = 4;

  void add(const WeightView& w) noexcept {
    TERRACE_DCHECK(n_ < kMostWeights);
    weights_[n_++] = {w.row(0), w.rows * row_bytes(w.dtype, w.row_stride)};
    bytes_ += weights_[n_ - 1].size;
  }

  /// Prefetches the i-th of n parts of the run.
  void prefetch_part(std::size_t i, std::size_t n) const noexcept {
    if (bytes_ > kMostBytes) return;
    const std::size_t begin = bytes_ * i / n, end = bytes_ * (i + 1) / n;
    std::size_t before = 0;
    for (const Span& weight : std::span(weights_).first(n_)) {
      const std::size_t from = std::max(begin, before), to = std::min(end, before + weight.size);
      if (from < to) prefetch_bytes(weight.data + (from - before), to - from);
      before += weight.size;
    }
  }

 private:
  struct Span {
    const std::byte* data;
    std::size_t size;
  };
  std::array<Span, kMostWeights> weights_{};
  std::size_t n_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace terrace
