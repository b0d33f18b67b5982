// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>

#include "attention/kernels/attention_kernels.h"
#include "engine/kernels/lanes.h"

// Prefetching for the bodies of attend_page.

namespace terrace {
namespace {

/// How far ahead q8 and q4 keys and values are prefetched, into the second-level cache. A head's page is a
/// short run, read in a microsecond, which the hardware prefetcher has no time to learn, and the nearest
/// cache can wait for too few lines at once: bench_attention, multi_head/q8/8192, two cores of an Emerald
/// Rapids: 15 to 18 GB/s with 1 to 8 KB into the nearest cache, 25 with 8 KB into the second. With 12 KB,
/// pages of 128 q4 channels take a little less time again, those of q8 the same.
constexpr std::size_t kBytesAhead = 12288;
constexpr int kIntoSecondCache = 2;

/// Prefetches n_bytes; `locality` as in __builtin_prefetch: 3 for the nearest cache, 2 for the next one.
template <std::size_t n_bytes, int locality = 3>
inline void prefetch(const char* p) noexcept {
  TERRACE_UNROLL
  for (std::size_t line = 0; line < n_bytes; line += 64) __builtin_prefetch(p + line, 0, locality);
}

/// Where the bytes lie that will be needed after those being read: further on in the page, whose values
/// follow its keys, then at the start of the next page. Rows after the first find the page in the cache.
class Ahead {
 public:
  Ahead(const PageTask& task, std::size_t row, std::size_t value_row_bytes, std::size_t distance) noexcept
      : end_(static_cast<const char*>(task.values) + kPageSlots * value_row_bytes),
        distance_(row > 0 ? 0 : std::min<std::size_t>(distance, end_ - static_cast<const char*>(task.keys))),
        beyond_(task.next_page ? static_cast<const char*>(task.next_page) - end_ : 0) {}

  const char* of(const void* p) const noexcept {
    const char* const ahead = static_cast<const char*>(p) + distance_;
    return ahead < end_ ? ahead : ahead + beyond_;
  }

 private:
  const char* end_;
  std::size_t distance_;
  std::ptrdiff_t beyond_;
};

}  // namespace
}  // namespace terrace
