// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/lsh_state.h"
#include "attention/memory_window.h"

namespace terrace {

inline constexpr std::size_t kSelectNumbersPerRound = 3;

/// The slots that Trax's one-token rule attends to from the newest slot `t` of a head, ascending; its own
/// slot only where there is no other. Returns how many.
///
///   match(s)    = s and t share a bucket in any round
///   priority(s) = s + mem_len * match(s); slots after t + 1 (they are empty) below all others
///   taken: the `budget` slots of highest priority; empty ones are dropped from them afterwards
///
/// Matches are met newest first by walking the bucket lists of all rounds side by side. The empty slot t + 1
/// competes like a real one: it uses up a place ahead of every slot that does not match, and ahead of all
/// where its bucket, the number 0 of unwritten memory, is the query's in round 0. Only a full memory has no
/// such slot. `slots` holds 2 * budget + n_hashes * kSelectNumbersPerRound numbers; the result stands at its
/// start. Cost: O(budget * n_hashes). Source: Trax `LSHSelfAttention` in predict mode.
std::size_t select_slots(const LshState& state, std::size_t head, std::size_t t, std::size_t n_hashes,
                         const MemoryWindow& window, std::size_t budget, std::uint32_t* slots) noexcept;

/// The slots of exact attention from the newest slot `t`: all in the window but its own, or that alone.
/// Returns how many; `slots` holds t + 1 numbers, or as many as the window is long.
std::size_t every_slot(std::size_t t, const MemoryWindow& window, std::uint32_t* slots) noexcept;

/// order = the numbers 0..n-1 sorted by (ids[i], i); ids are below n_buckets. `counts` holds n_buckets + 1
/// numbers.
void sort_by_bucket(const std::uint32_t* ids, std::size_t n, std::uint32_t n_buckets, std::uint32_t* counts,
                    std::uint32_t* order) noexcept;

}  // namespace terrace
