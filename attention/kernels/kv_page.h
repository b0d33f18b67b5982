// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

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
// q4, nibbles that hold -8..7 as 0..15, two to a byte, and a bf16 scale per kQ4Group channels of a slot; runs
// of bytes, each with its scales in front:
//   keys    [kPageSlots / kLanes] { scales [groups][kLanes], [octets(d_k)][kLanes][kQuad] }
//           byte c of octet i: channel 8 i + c, and 8 i + kQuad + c in the high nibble
//   values  [groups] { scales [kPageSlots], [kPageSlots / kQuad][kLanes][kQuad slots] }
//           lane c of group g: channel 32 g + c, and 32 g + kLanes + c in the high nibble
// so that lanes are what they are in q8 once the nibbles are unpacked, and both halves of a byte have the
// same scale. Channels beyond d_k and d_v are 0.
//
// The open group: writing a single key would touch a cache line per channel, each for a few bytes. So while
// the last group of kLanes slots is not full, its keys are transposed: in every square of kLanes slots by
// kLanes channels (q8: quads of channels) rows and columns are swapped, in place, and a key touches one line
// per square. Channels left over after the last whole square are never swapped. When the last slot of the
// group is written, the squares are transposed back. In q4 the open group's keys are rows,
// [kLanes][octets(d_k)][kQuad], which is one line for 128 channels and needs no square; the scales stay where
// they are.

namespace terrace {

/// Slots of a page. A page is the unit of the fixed summation order, of sharing between forks and of work for
/// threads. 128 slots of a 64-wide bf16 head are 32 KiB of keys and values: large enough that the maximum,
/// the sum and the merge of a page cost only a few percent, small enough to stay in the L1/L2 cache while all
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

inline constexpr std::size_t kOctet = 2 * kQuad;
/// Four-byte units that hold the nibbles of `d` channels of a key.
constexpr std::size_t octets(std::size_t d) noexcept { return (d + kOctet - 1) / kOctet; }
inline constexpr std::size_t kOctetsPerGroup = kQ4Group / kOctet;
/// Scales of `d` channels.
constexpr std::size_t q4_groups(std::size_t d) noexcept { return (d + kQ4Group - 1) / kQ4Group; }

inline constexpr std::size_t kQ4ScaleBytes = 2;
/// Bytes of the scales before a run of keys, and of the run with them.
constexpr std::size_t q4_key_scales(std::size_t d_k) noexcept {
  return q4_groups(d_k) * kLanes * kQ4ScaleBytes;
}
constexpr std::size_t q4_key_run(std::size_t d_k) noexcept {
  return q4_key_scales(d_k) + octets(d_k) * kLanes * kQuad;
}
/// Places, in bytes, of the scale of group `g` and of octet `i` of the q4 key in slot `slot`, the latter
/// outside the open group.
constexpr std::size_t q4_key_scale_index(std::size_t slot, std::size_t g, std::size_t d_k) noexcept {
  return slot / kLanes * q4_key_run(d_k) + (g * kLanes + slot % kLanes) * kQ4ScaleBytes;
}
constexpr std::size_t q4_key_index(std::size_t slot, std::size_t i, std::size_t d_k) noexcept {
  return slot / kLanes * q4_key_run(d_k) + q4_key_scales(d_k) + (i * kLanes + slot % kLanes) * kQuad;
}
/// q4_key_index in the open group.
constexpr std::size_t open_q4_key_index(std::size_t slot, std::size_t i, std::size_t d_k) noexcept {
  return slot / kLanes * q4_key_run(d_k) + q4_key_scales(d_k) + (slot % kLanes * octets(d_k) + i) * kQuad;
}
/// Bytes of the scales before a group of values, and of the group with them.
inline constexpr std::size_t kQ4ValueScales = kPageSlots * kQ4ScaleBytes;
inline constexpr std::size_t kQ4ValueRun = kQ4ValueScales + kPageSlots * kLanes;
/// Places, in bytes, of the scale of group `g` and of its channels c and c + kLanes of the q4 value in
/// `slot`.
constexpr std::size_t q4_value_scale_index(std::size_t slot, std::size_t g) noexcept {
  return g * kQ4ValueRun + slot * kQ4ScaleBytes;
}
constexpr std::size_t q4_value_index(std::size_t slot, std::size_t g, std::size_t c) noexcept {
  return g * kQ4ValueRun + kQ4ValueScales + (slot / kQuad * kLanes + c) * kQuad + slot % kQuad;
}

}  // namespace terrace
