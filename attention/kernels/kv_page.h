// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/tensor.h"

// Layout of one page of one KV head. Shared by the cache that writes it and the kernels that read it.
//
// f32 and bf16:
//   keys    [kPageSlots / kKeyTile][d_k][kKeyTile]
//   values  [kPageSlots][padded_width(d_v)]
// Keys are transposed inside a tile: scores of neighbouring slots lie in neighbouring lanes, so that no sum
// runs across lanes. Values are rows: the output is a chain of multiply-adds over slots.
//
// q8, bytes (kQuad of them make one 32-bit lane of an integer dot product):
//   scales  float of every slot's key, then of every slot's value
//   keys    [kPageSlots / kLanes][quads(d_k)][kLanes][kQuad channels]
//   values  [kPageSlots / kQuad][padded_width(d_v)][kQuad slots]
// Lanes are slots for keys and channels for values, so that here too no sum runs across lanes. Channels
// beyond d_k and d_v are 0.
//
// The open group: a key of its own would touch a cache line per channel, each for a few bytes. So the keys of
// the last kLanes slots, while they are not all there, lie the other way round: of every square of kLanes
// slots by kLanes channels (q8: quads of channels) rows and columns are swapped, in place, and a key touches
// one line per square. Channels left over after the last whole square are never swapped. When the last slot
// of the group comes, the squares are turned.

namespace terrace {

/// Slots of a page. A page is the unit of the fixed summation order, of sharing between forks and of work for
/// threads. 128 slots of a 64-wide bf16 head are 32 KiB of keys and values: large enough that the maximum,
/// the sum and the merge of a page cost a few percent, small enough to stay in the L1/L2 cache while all
/// query heads and rows pass over it.
inline constexpr std::size_t kPageSlots = 128;
/// Slots of a key tile: 64 scores of one query fill eight 8-lane accumulators, which hides the latency of the
/// multiply-add, and the tile is read front to back.
inline constexpr std::size_t kKeyTile = 64;

/// `d` rounded up to whole groups of kLanes; value rows are zero-padded to it.
constexpr std::size_t padded_width(std::size_t d) noexcept { return (d + kLanes - 1) / kLanes * kLanes; }

/// Index of element `d` of the key in slot `slot` of a page, outside the open group.
constexpr std::size_t key_index(std::size_t slot, std::size_t d, std::size_t d_k) noexcept {
  return (slot / kKeyTile * d_k + d) * kKeyTile + slot % kKeyTile;
}

/// Channels (quads) of a key, `n` in all, that lie in squares.
constexpr std::size_t in_squares(std::size_t n) noexcept { return n / kLanes * kLanes; }

/// key_index in the open group.
constexpr std::size_t open_key_index(std::size_t slot, std::size_t d, std::size_t d_k) noexcept {
  if (d >= in_squares(d_k)) return key_index(slot, d, d_k);
  return key_index(slot / kLanes * kLanes + d % kLanes, d / kLanes * kLanes + slot % kLanes, d_k);
}

inline constexpr std::size_t kQuad = 4;
/// Quads that hold `n` bytes.
constexpr std::size_t quads(std::size_t n) noexcept { return (n + kQuad - 1) / kQuad; }

/// Index of the quad of channels 4 i .. 4 i + 3 of the q8 key in slot `slot`, outside the open group.
constexpr std::size_t q8_key_index(std::size_t slot, std::size_t i, std::size_t d_k) noexcept {
  return ((slot / kLanes * quads(d_k) + i) * kLanes + slot % kLanes) * kQuad;
}
/// q8_key_index in the open group.
constexpr std::size_t open_q8_key_index(std::size_t slot, std::size_t i, std::size_t d_k) noexcept {
  if (i >= in_squares(quads(d_k))) return q8_key_index(slot, i, d_k);
  return q8_key_index(slot / kLanes * kLanes + i % kLanes, i / kLanes * kLanes + slot % kLanes, d_k);
}
/// Index of channel `d` of the q8 value in slot `slot`.
constexpr std::size_t q8_value_index(std::size_t slot, std::size_t d, std::size_t d_v) noexcept {
  return (slot / kQuad * padded_width(d_v) + d) * kQuad + slot % kQuad;
}

}  // namespace terrace
