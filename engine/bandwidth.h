// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/memory.h"
#include "engine/runtime.h"

namespace terrace {

/// Rows that tokens choose: `bytes` of them in all, `row_bytes` each.
struct ScatteredRows {
  std::uint64_t bytes = 0;
  std::size_t row_bytes = 0;
};

/// How fast a team can read memory: the limit that decoding speed is compared with.
///
/// The probe reads a buffer much larger than any cache, from first to last byte, with all threads of the team
/// and nothing but loads, in the same chunks that a large matrix is cut into. On a shared machine the limit
/// moves from minute to minute, so it is measured right before and after what it is compared with, in the
/// same process.
class BandwidthProbe {
 public:
  static constexpr std::size_t kDefaultBytes = std::size_t{512} << 20;

  /// Allocates and fills the buffer. Throws Error{kOutOfMemory}.
  explicit BandwidthProbe(std::size_t bytes = kDefaultBytes);

  /// Bytes per second of the fastest of `repetitions` passes: a neighbour can only slow a pass down.
  double measure(Runtime& runtime, unsigned repetitions = 3) const;
  /// The same for rows in no order, as layers read that choose rows: a thread prefetches some rows ahead of
  /// the one it reads. A pass reads a few thousand of those that fit into the buffer. No rows: measure().
  double measure_scattered(Runtime& runtime, const ScatteredRows& rows, unsigned repetitions = 3) const;

 private:
  VirtualBuffer buffer_;
};

/// One measurement with a buffer of its own. Takes about 0.2 s.
double measure_read_bandwidth(Runtime& runtime);

}  // namespace terrace
