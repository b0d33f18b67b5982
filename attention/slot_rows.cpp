// SPDX-License-Identifier: Apache-2.0
#include "attention/slot_rows.h"

#include <algorithm>
#include <cstring>

#include "attention/kernels/kv_page.h"
#include "engine/ceil_div.h"
#include "engine/dtype.h"
#include "engine/isa.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/memory.h"

namespace terrace {

SlotRows::SlotRows(KvType type, std::size_t d_k, std::size_t d_v)
    : type_(stored_type(type)),
      d_k_(d_k),
      d_v_(d_v),
      value_offset_(padded_width(d_k) * KvRows::element_bytes(type_)),
      scales_offset_(value_offset_ + padded_width(d_v) * KvRows::element_bytes(type_)) {
  KvRows::check_channels(type_, d_k, d_v);
  row_bytes_ = scales_offset_;
  if (type_ != KvType::kQ8) return;
  row_bytes_ += 2 * sizeof(float);
  dense_ = &dense_kernels(isa_from_environment());  // every table gives the same bits
}

std::size_t SlotRows::bytes() const noexcept {
  return ceil_div(kPageSlots * row_bytes_, kCacheLine) * kCacheLine;
}

std::size_t SlotRows::slot_bytes() const noexcept {
  return (d_k_ + d_v_) * KvRows::element_bytes(type_) + (type_ == KvType::kQ8 ? 2 * sizeof(float) : 0);
}

void SlotRows::write(const float* key, const float* value, std::size_t slot, std::byte* part) const noexcept {
  std::byte* const row = part + slot * row_bytes_;
  switch (type_) {
    case KvType::kF32:
      std::copy_n(key, d_k_, reinterpret_cast<float*>(row));
      std::copy_n(value, d_v_, reinterpret_cast<float*>(row + value_offset_));
      break;
    case KvType::kBf16:
      std::transform(key, key + d_k_, reinterpret_cast<std::uint16_t*>(row), f32_to_bf16);
      std::transform(value, value + d_v_, reinterpret_cast<std::uint16_t*>(row + value_offset_), f32_to_bf16);
      break;
    case KvType::kQ8:
    case KvType::kQ4: {
      alignas(kCacheLine) std::int8_t steps[KvRows::kMostChannels];  // whole groups, longer than the row
      auto* const scale = reinterpret_cast<float*>(row + scales_offset_);
      scale[0] = quantize_row(*dense_, key, d_k_, steps).scale;
      std::memcpy(row, steps, d_k_);
      scale[1] = quantize_row(*dense_, value, d_v_, steps).scale;
      std::memcpy(row + value_offset_, steps, d_v_);
      break;
    }
  }
}

}  // namespace terrace
