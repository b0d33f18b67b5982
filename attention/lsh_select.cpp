// SPDX-License-Identifier: Apache-2.0
#include "attention/lsh_select.h"

#include <algorithm>
#include <memory>
#include <numeric>

namespace terrace {
namespace {

/// A walk through one round's bucket, newest slot first: three of the caller's numbers.
struct Walk {
  std::uint32_t slot;    // LshState::kNone at the end
  std::uint32_t anchor;  // slot whose trail is being followed
  std::uint32_t next;    // in that trail
};
constexpr std::size_t kWalkNumbers = sizeof(Walk) / sizeof(std::uint32_t);

Walk walk_from(const LshState& state, std::size_t head, std::size_t round, std::uint32_t slot) noexcept {
  if (slot != LshState::kNone) {
    // Where the walk will go on after this trail: on its way while the trail is used.
    const std::uint32_t far = state.trail(head, slot, round)[LshState::kTrail - 1];
    if (far != LshState::kNone) __builtin_prefetch(state.trail(head, far, round));
  }
  return {slot, slot, 0};
}

void advance(const LshState& state, std::size_t head, std::size_t round, Walk& walk) noexcept {
  walk.slot = state.trail(head, walk.anchor, round)[walk.next++];
  if (walk.next == LshState::kTrail) walk = walk_from(state, head, round, walk.slot);
}

}  // namespace

std::size_t select_slots(const LshState& state, std::size_t head, std::size_t t, std::size_t n_hashes,
                         const MemoryWindow& window, std::size_t budget, std::uint32_t* slots) noexcept {
  const std::size_t oldest = window.begin(t);
  bool has_empty_slot = t + 1 - oldest < window.mem_len;
  if (has_empty_slot && state.bucket(head, t, 0) == 0) {
    --budget;
    has_empty_slot = false;
  }

  std::uint32_t* const matches = slots + budget;  // newest first
  static_assert(kWalkNumbers == kSelectNumbersPerRound);
  Walk* const walks = reinterpret_cast<Walk*>(matches + budget);
  for (std::size_t round = 0; round < n_hashes; ++round) {
    const std::uint32_t first = state.newest(head, round, state.bucket(head, t, round));
    std::construct_at(walks + round, walk_from(state, head, round, first));
  }
  std::size_t n_matches = 0;
  while (n_matches < budget) {
    std::uint32_t newest = LshState::kNone;
    for (std::size_t round = 0; round < n_hashes; ++round) {
      const std::uint32_t slot = walks[round].slot;
      if (slot == LshState::kNone || slot < oldest) continue;
      if (newest == LshState::kNone || slot > newest) newest = slot;
    }
    if (newest == LshState::kNone) break;
    matches[n_matches++] = newest;
    state.prefetch(head, newest);  // the walk waits for memory anyway
    for (std::size_t round = 0; round < n_hashes; ++round) {
      if (walks[round].slot == newest) advance(state, head, round, walks[round]);
    }
  }
  std::size_t n_others = budget - n_matches;
  if (has_empty_slot && n_others > 0) --n_others;

  // Filling up with the newest other slots makes everything from `all_from` on chosen.
  std::size_t all_from = t + 1;
  std::size_t passed = 0;  // matches among them
  for (std::size_t others = 0; all_from > oldest && others < n_others;) {
    --all_from;
    if (passed < n_matches && matches[passed] == all_from) {
      ++passed;
    } else {
      ++others;
    }
  }
  std::size_t n = n_matches - passed;
  std::reverse_copy(matches + passed, matches + n_matches, slots);
  for (std::size_t slot = all_from; slot <= t; ++slot) {
    slots[n++] = static_cast<std::uint32_t>(slot);
    state.prefetch(head, slot);
  }
  return n > 1 && slots[n - 1] == t ? n - 1 : n;
}

std::size_t every_slot(std::size_t t, const MemoryWindow& window, std::uint32_t* slots) noexcept {
  const std::size_t oldest = window.begin(t);
  const std::size_t n = std::max<std::size_t>(1, t - oldest);
  std::iota(slots, slots + n, static_cast<std::uint32_t>(oldest));
  return n;
}

void sort_by_bucket(const std::uint32_t* ids, std::size_t n, std::uint32_t n_buckets, std::uint32_t* counts,
                    std::uint32_t* order) noexcept {
  std::fill_n(counts, n_buckets + 1, 0U);
  for (std::size_t i = 0; i < n; ++i) ++counts[ids[i] + 1];
  for (std::uint32_t b = 0; b < n_buckets; ++b) counts[b + 1] += counts[b];
  for (std::size_t i = 0; i < n; ++i) order[counts[ids[i]]++] = static_cast<std::uint32_t>(i);
}

}  // namespace terrace
