// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace terrace {

/// The rows that a decoder with bounded memory still remembers, as a function of how many it has seen.
///
/// Trax keeps a buffer of `mem_len` rows; when it is full, the oldest `drop_len` rows leave before the next
/// one enters. The first row still remembered when row t is the newest is therefore the smallest multiple of
/// drop_len that leaves at most mem_len rows. So truncating a sequence needs nothing stored and nothing
/// undone.
struct MemoryWindow {
  std::size_t mem_len = 0;   ///< 0: everything is remembered
  std::size_t drop_len = 1;  ///< 1 <= drop_len <= mem_len

  /// First row in the buffer when row `t` is the newest.
  constexpr std::size_t begin(std::size_t t) const noexcept {
    if (mem_len == 0 || t < mem_len) return 0;
    return (t - mem_len) / drop_len * drop_len + drop_len;
  }
};

}  // namespace terrace
