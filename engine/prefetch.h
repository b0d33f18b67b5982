// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "engine/memory.h"

namespace terrace {

/// Prefetches the cache lines of n bytes, for reading, into the L2 cache: a first-level cache can wait for
/// few lines at a time.
inline void prefetch_bytes(const void* data, std::size_t n) noexcept {
  constexpr int kRead = 0;
  constexpr int kIntoL2 = 2;
  const auto* const p = static_cast<const char*>(data);
  for (std::size_t i = 0; i < n; i += kCacheLine) __builtin_prefetch(p + i, kRead, kIntoL2);
}

}  // namespace terrace
