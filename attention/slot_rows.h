// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/kernels/attention_kernels.h"
#include "attention/kv_rows.h"
#include "engine/prefetch.h"

namespace terrace {

struct DenseKernels;

/// Keys and values of attention that gathers slots, one head's part of one page:
///   [kPageSlots] { key [padded d_k], value [padded d_v], q8: their scales, two floats }
/// A chosen slot needs all of it, and what lies elsewhere would be another miss of the TLB. Elements are f32,
/// bf16 (nearest even) or int8 (scale = max / 127). Four bits are not kept: q4 is stored as q8. (KvRows lays
/// out pages that are read from one end to the other.)
class SlotRows {
 public:
  SlotRows() = default;
  /// Throws as KvRows::check_channels().
  SlotRows(KvType type, std::size_t d_k, std::size_t d_v);

  /// How rows are stored when a session's keys and values are of `type`.
  static KvType stored_type(KvType type) noexcept { return type == KvType::kQ4 ? KvType::kQ8 : type; }

  KvType type() const noexcept { return type_; }
  std::size_t d_k() const noexcept { return d_k_; }
  std::size_t d_v() const noexcept { return d_v_; }
  std::size_t row_bytes() const noexcept { return row_bytes_; }
  /// Bytes of a head in a page: a whole number of cache lines.
  std::size_t bytes() const noexcept;
  /// Bytes that attention reads of one slot.
  std::size_t slot_bytes() const noexcept;

  /// Stores key [d_k] and value [d_v] in `slot` (of the page) of the part at `part`.
  void write(const float* key, const float* value, std::size_t slot, std::byte* part) const noexcept;

  const std::byte* key(std::size_t slot, const std::byte* part) const noexcept {
    return part + slot * row_bytes_;
  }
  const std::byte* value(std::size_t slot, const std::byte* part) const noexcept {
    return key(slot, part) + value_offset_;
  }
  /// Key's and value's scale; only of q8.
  const float* scales(std::size_t slot, const std::byte* part) const noexcept {
    return reinterpret_cast<const float*>(key(slot, part) + scales_offset_);
  }
  /// Requests all that attention reads of a slot.
  void prefetch(std::size_t slot, const std::byte* part) const noexcept {
    const std::byte* const row = key(slot, part);
    prefetch_bytes(row, row_bytes_);
    prefetch_bytes(row + row_bytes_ - 1, 1);  // rows of q8 begin anywhere in a line
  }

 private:
  KvType type_ = KvType::kF32;
  std::size_t d_k_ = 0, d_v_ = 0;
  std::size_t row_bytes_ = 0, value_offset_ = 0, scales_offset_ = 0;
  const DenseKernels* dense_ = nullptr;  // of q8
};

}  // namespace terrace
