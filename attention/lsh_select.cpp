// SPDX-License-Identifier: Apache-2.0
#include "attention/lsh_select.h"

#include <algorithm>

namespace terrace {

std::size_t select_slots(const LshState& state, std::size_t head, std::size_t t, std::size_t n_hashes,
                         const MemoryWindow& window, std::size_t budget, std::uint32_t* slots) noexcept {
  const std::size_t oldest = window.begin(t);
  bool has_empty_slot = t + 1 - oldest < window.mem_len;
  if (has_empty_slot && state.bucket(head, t, 0) == 0) {
    --budget;
    has_empty_slot = false;
  }

  std::uint32_t* const matches = slots + budget;  // newest first
  std::uint32_t* const cursor = matches + budget;
  for (std::size_t round = 0; round < n_hashes; ++round) {
    cursor[round] = state.newest(head, round, state.bucket(head, t, round));
  }
  std::size_t n_matches = 0;
  while (n_matches < budget) {
    std::uint32_t newest = LshState::kNone;
    for (std::size_t round = 0; round < n_hashes; ++round) {
      if (cursor[round] == LshState::kNone || cursor[round] < oldest) continue;
      if (newest == LshState::kNone || cursor[round] > newest) newest = cursor[round];
    }
    if (newest == LshState::kNone) break;
    matches[n_matches++] = newest;
    for (std::size_t round = 0; round < n_hashes; ++round) {
      if (cursor[round] == newest) cursor[round] = state.previous(head, newest, round);
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
  for (std::size_t slot = all_from; slot <= t; ++slot) slots[n++] = static_cast<std::uint32_t>(slot);
  return n > 1 && slots[n - 1] == t ? n - 1 : n;
}

void sort_by_bucket(const std::uint32_t* ids, std::size_t n, std::uint32_t n_buckets, std::uint32_t* counts,
                    std::uint32_t* order) noexcept {
  std::fill_n(counts, n_buckets + 1, 0U);
  for (std::size_t i = 0; i < n; ++i) ++counts[ids[i] + 1];
  for (std::uint32_t b = 0; b < n_buckets; ++b) counts[b + 1] += counts[b];
  for (std::size_t i = 0; i < n; ++i) order[counts[ids[i]]++] = static_cast<std::uint32_t>(i);
}

}  // namespace terrace
