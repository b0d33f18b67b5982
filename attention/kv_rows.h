// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "attention/kernels/kv_page.h"
#include "engine/tensor.h"

namespace terrace {

struct AttentionKernels;
struct DenseKernels;

/// How cached keys and values are stored.
enum class KvType : std::uint8_t {
  kF32,
  kBf16,  ///< rounded to nearest even
  kQ8,    ///< int8 with one f32 scale, max / 127, per key and per value (one slot of one head)
  kQ4,    ///< -8..7 with one bf16 scale, the extreme / -8, per kQ4Group channels of a key or value
};

inline constexpr KvType kKvTypes[] = {KvType::kF32, KvType::kBf16, KvType::kQ8, KvType::kQ4};

/// "f32", "bf16", "q8", "q4": as on the command line.
const char* kv_type_name(KvType type) noexcept;
/// The type of that name. Throws Error{kBadArgument}.
KvType parse_kv_type(std::string_view name);

/// One KV head's rows of one page: where they lie (kernels/kv_page.h) and how they are written.
class KvRows {
 public:
  /// Longest quantised row, whose steps are made on the stack.
  static constexpr std::size_t kMostChannels = 4096;

  /// Bytes of a channel; q4 has two channels to a byte.
  static constexpr std::size_t element_bytes(KvType type) noexcept {
    return type == KvType::kF32 ? 4 : type == KvType::kBf16 ? 2 : 1;
  }
  /// Throws Error{kBadArgument} for q8 and q4 rows of more than kMostChannels.
  static void check_channels(KvType type, std::size_t d_k, std::size_t d_v);

  KvRows() = default;
  /// Throws as check_channels().
  KvRows(KvType type, std::size_t d_k, std::size_t d_v);

  KvType type() const noexcept { return type_; }
  /// Bytes of the head in a page: a whole number of cache lines.
  std::size_t bytes() const noexcept;
  /// In q8 the scales are in front: kPageSlots floats of the keys, then of the values.
  std::size_t keys_offset() const noexcept;
  std::size_t values_offset() const noexcept;
  /// Bytes that attention reads of one slot.
  std::size_t slot_bytes() const noexcept;

  /// Rows t of [begin, end) of k [T, n_heads * d_k] and v [T, n_heads * d_v], columns of `head`, go to slots
  /// first_slot + t - begin of the part at `to`. The slots before are full: the group of first_slot is open.
  void write(ConstRows k, ConstRows v, std::size_t head, std::size_t begin, std::size_t end,
             std::size_t first_slot, std::byte* to) const noexcept;
  /// Opens the full group of `slot`, or lays out the open one as a full one.
  void turn_group(std::size_t slot, bool open, std::byte* part) const noexcept;
  /// Prefetches the keys and values of the first `n_slots` slots.
  void prefetch(std::size_t n_slots, const std::byte* part) const noexcept;
  /// Zeros in the slots from `first_slot` on, whose group is not open.
  void clear(std::size_t first_slot, std::byte* part) const noexcept;

 private:
  void write_q8(const float* k, const float* v, std::size_t slot, std::byte* to) const noexcept;
  void write_q4(const float* k, const float* v, std::size_t slot, std::byte* to) const noexcept;
  void clear_q4(std::size_t first_slot, std::byte* part) const noexcept;

  KvType type_ = KvType::kF32;
  std::size_t d_k_ = 0, d_v_ = 0;
  const DenseKernels* dense_ = nullptr;          // of q8
  const AttentionKernels* attention_ = nullptr;  // of q4
};

}  // namespace terrace
