// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "engine/ceil_div.h"
#include "engine/largest.h"
#include "engine/memory.h"
#include "engine/profile.h"
#include "engine/row_observer.h"
#include "engine/thread_team.h"

namespace terrace {

/// What a layer's forward call runs on: threads and scratch memory. Layers take it by reference and keep
/// nothing of it.
struct Exec {
  ThreadTeam& team;
  Workspace& ws;
  Profile* profile = nullptr;       ///< is told what time is spent on; may be null
  RowObserver* observer = nullptr;  ///< is shown rows; may be null

  /// Below this many bytes of weights (or multiply-adds of activations) a phase stays on the leader: a
  /// fork-join costs about 0.9 us, which is 14 KiB of memory traffic on one core, and then its outputs have
  /// to come back from the other core. Of 16, 40 and 64 KiB, 40 was the best, or no worse than the best, for
  /// the default model, lm-default, c4-medium and lm1b-24L.
  static constexpr std::size_t kMinWorkPerChunk = std::size_t{40} * 1024;
  /// The same for a phase whose output the next one reads on all cores: lines that another core wrote travel
  /// at about the speed of memory, so one core alone is faster at less than some 10 us of work (c4-medium q8:
  /// 3 to 5 % of a token).
  static constexpr std::size_t kMinWorkPerShare = std::size_t{128} * 1024;

  /// Splits [0, n) into contiguous ranges of at least `grain` items, a multiple of `align` (the last one may
  /// be shorter), and runs fn(begin, end) on each. Results must not depend on the split. `work_per_item` is
  /// in bytes read or multiply-adds, whichever is larger.
  template <class F>
  void for_range(std::size_t n, std::size_t align, std::size_t work_per_item, F&& fn) const noexcept {
    const std::size_t per_chunk = items_per_chunk(n, align, work_per_item, team.size());
    const auto n_chunks = static_cast<std::uint32_t>(ceil_div(n, per_chunk));
    team.run(n_chunks, [&](std::uint32_t chunk) {
      const std::size_t begin = chunk * per_chunk;
      fn(begin, std::min(n, begin + per_chunk));
    });
  }
  /// The length of its ranges with `n_threads`; the phase is shared if that is less than n.
  static constexpr std::size_t items_per_chunk(std::size_t n, std::size_t align, std::size_t work_per_item,
                                               std::size_t n_threads) noexcept {
    const std::size_t grain =
        std::max<std::size_t>(1, kMinWorkPerChunk / std::max<std::size_t>(1, work_per_item));
    const std::size_t per_chunk = std::max(grain, ceil_div(n, most_chunks(n_threads)));
    return ceil_div(per_chunk, align) * align;
  }

  /// How many chunks of about equal work n items are worth, for a phase that cuts them itself.
  std::uint32_t chunks_of(std::size_t n, std::size_t work_per_item) const noexcept {
    return chunks_of(n, work_per_item, team.size());
  }
  static constexpr std::uint32_t chunks_of(std::size_t n, std::size_t work_per_item,
                                           std::size_t n_threads) noexcept {
    return bounded_chunks(n, work_per_item, most_chunks(n_threads), kMinWorkPerChunk);
  }
  /// The same where every thread takes one chunk, the leader the first: for short phases that follow each
  /// other on the same data, which then stays in the cache of its core, and for work that a thread does once
  /// for all its items. The price: nobody overtakes a thread that loses its core.
  std::uint32_t one_chunk_each(std::size_t n, std::size_t work_per_item) const noexcept {
    return one_chunk_each(n, work_per_item, team.size());
  }
  static constexpr std::uint32_t one_chunk_each(std::size_t n, std::size_t work_per_item,
                                                std::size_t n_threads) noexcept {
    return bounded_chunks(n, work_per_item, n_threads, kMinWorkPerShare);
  }

  /// The largest value that `n` blocks produce: take(block, largest) shows those of one block to `largest`.
  template <class Take>
  Largest largest_of_blocks(std::size_t n, std::size_t work_per_block, Take take) const {
    const std::uint32_t n_chunks = chunks_of(n, work_per_block);
    auto* const found = ws.take<Largest>(n_chunks);
    team.run(n_chunks, [&](std::uint32_t chunk) {
      Largest of_chunk;
      for (std::size_t i = n * chunk / n_chunks; i < n * (chunk + 1) / n_chunks; ++i) take(i, of_chunk);
      found[chunk] = of_chunk;
    });
    Largest largest;
    for (std::uint32_t chunk = 0; chunk < n_chunks; ++chunk) largest.take(found[chunk]);
    return largest;
  }

 private:
  /// A few chunks per thread let a thread that lost its core for a moment be overtaken.
  static constexpr std::size_t most_chunks(std::size_t n_threads) noexcept {
    return n_threads <= 1 ? 1 : 4 * n_threads;
  }
  static constexpr std::uint32_t bounded_chunks(std::size_t n, std::size_t work_per_item, std::size_t most,
                                                std::size_t least_work) noexcept {
    const std::size_t chunks = std::min(n, n * work_per_item / least_work);
    return static_cast<std::uint32_t>(std::clamp<std::size_t>(chunks, 1, most));
  }
};

}  // namespace terrace
