// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "engine/memory.h"
#include "engine/profile.h"
#include "engine/thread_team.h"

namespace terrace {

/// What a layer's forward call runs on: threads and scratch memory. Layers take it by reference and keep
/// nothing of it.
struct Exec {
  ThreadTeam& team;
  Workspace& ws;
  Profile* profile = nullptr;  ///< told what time is spent on, if there is one

  /// Below this many bytes of weights (or multiply-adds of activations) a phase stays on the leader: a
  /// fork-join costs about 0.35 us, which is 10 KiB of memory traffic on one core.
  static constexpr std::size_t kMinWorkPerChunk = std::size_t{16} * 1024;

  /// Splits [0, n) into contiguous ranges of at least `grain` items, a multiple of `align` (the last one may
  /// be shorter), and runs fn(begin, end) on each. Results must not depend on the split. `work_per_item` in
  /// bytes read or multiply-adds, whichever is larger.
  template <class F>
  void for_range(std::size_t n, std::size_t align, std::size_t work_per_item, F&& fn) const noexcept {
    const std::size_t grain =
        std::max<std::size_t>(1, kMinWorkPerChunk / std::max<std::size_t>(1, work_per_item));
    // A few chunks per thread let a thread that lost its core for a moment be overtaken.
    const std::size_t wanted = team.size() == 1 ? 1 : std::size_t{4} * team.size();
    std::size_t per_chunk = std::max(grain, (n + wanted - 1) / wanted);
    per_chunk = (per_chunk + align - 1) / align * align;
    const auto n_chunks = static_cast<std::uint32_t>((n + per_chunk - 1) / per_chunk);
    team.run(n_chunks, [&](std::uint32_t chunk) {
      const std::size_t begin = chunk * per_chunk;
      fn(begin, std::min(n, begin + per_chunk));
    });
  }
};

}  // namespace terrace
