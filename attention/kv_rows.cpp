// SPDX-License-Identifier: Apache-2.0
#include "attention/kv_rows.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "attention/kernels/attention_kernels.h"
#include "engine/dtype.h"
#include "engine/error.h"
#include "engine/isa.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/memory.h"
#include "engine/prefetch.h"

namespace terrace {
namespace {

void store(float x, float* to) noexcept { *to = x; }
void store(float x, std::uint16_t* to) noexcept { *to = f32_to_bf16(x); }

/// Key and value of one slot, which is in the open group.
template <class T>
void write_floats(const float* k, const float* v, std::size_t d_k, std::size_t d_v, std::size_t slot, T* keys,
                  T* values) noexcept {
  std::size_t d = 0;
  for (; d < in_squares(d_k); d += kLanes) {
    T* const row = keys + open_key_index(slot, d, d_k);
    for (std::size_t i = 0; i < kLanes; ++i) store(k[d + i], row + i);
  }
  for (; d < d_k; ++d) store(k[d], keys + key_index(slot, d, d_k));
  T* const row = values + slot * padded_width(d_v);
  for (d = 0; d < d_v; ++d) store(v[d], row + d);
}

/// Swaps rows and columns of a square whose rows are `stride` apart.
template <class T>
void turn_square(T* square, std::size_t stride) noexcept {
  for (std::size_t i = 1; i < kLanes; ++i) {
    for (std::size_t j = 0; j < i; ++j) std::swap(square[i * stride + j], square[j * stride + i]);
  }
}

/// Turns the rows of an open q4 group into the runs of a full one, or back.
void turn_q4_group(std::byte* keys, std::size_t n_octets, bool open) noexcept {
  std::byte before[kLanes * octets(KvRows::kMostChannels) * kQuad];
  std::memcpy(before, keys, kLanes * n_octets * kQuad);
  for (std::size_t slot = 0; slot < kLanes; ++slot) {
    for (std::size_t i = 0; i < n_octets; ++i) {
      const std::size_t in_row = (slot * n_octets + i) * kQuad, in_run = (i * kLanes + slot) * kQuad;
      std::memcpy(keys + (open ? in_row : in_run), before + (open ? in_run : in_row), kQuad);
    }
  }
}

}  // namespace

const char* kv_type_name(KvType type) noexcept {
  switch (type) {
    case KvType::kF32:
      return "f32";
    case KvType::kBf16:
      return "bf16";
    case KvType::kQ8:
      return "q8";
    case KvType::kQ4:
      return "q4";
  }
  return "?";
}

KvType parse_kv_type(std::string_view name) {
  for (const KvType type : kKvTypes) {
    if (name == kv_type_name(type)) return type;
  }
  throw Error(ErrorCode::kBadArgument,
              "type of keys and values: expected f32, bf16, q8 or q4, found '" + std::string(name) + "'");
}

void KvRows::check_channels(KvType type, std::size_t d_k, std::size_t d_v) {
  if (type == KvType::kF32 || type == KvType::kBf16) return;
  TERRACE_CHECK(std::max(d_k, d_v) <= kMostChannels, kBadArgument,
                std::string(kv_type_name(type)) + " keys and values take heads of at most " +
                    std::to_string(kMostChannels) + " channels, found " + std::to_string(std::max(d_k, d_v)));
}

KvRows::KvRows(KvType type, std::size_t d_k, std::size_t d_v) : type_(type), d_k_(d_k), d_v_(d_v) {
  check_channels(type, d_k, d_v);
  if (type == KvType::kF32 || type == KvType::kBf16) return;
  const Isa isa = isa_from_environment();  // every table gives the same bits
  if (type == KvType::kQ8) dense_ = &dense_kernels(isa);
  if (type == KvType::kQ4) attention_ = &attention_kernels(isa);
}

std::size_t KvRows::keys_offset() const noexcept {
  return type_ == KvType::kQ8 ? 2 * kPageSlots * sizeof(float) : 0;
}

std::size_t KvRows::values_offset() const noexcept {
  if (type_ == KvType::kQ4) return kPageSlots / kLanes * q4_key_run(d_k_);
  const std::size_t row = type_ == KvType::kQ8 ? quads(d_k_) * kQuad : d_k_ * element_bytes(type_);
  return keys_offset() + kPageSlots * row;
}

std::size_t KvRows::bytes() const noexcept {
  if (type_ == KvType::kQ4) return values_offset() + q4_groups(d_v_) * kQ4ValueRun;
  return values_offset() + kPageSlots * padded_width(d_v_) * element_bytes(type_);
}

std::size_t KvRows::slot_bytes() const noexcept {
  if (type_ == KvType::kQ4) {
    const std::size_t nibbles = octets(d_k_) * kQuad + q4_groups(d_v_) * kLanes;
    return nibbles + (q4_groups(d_k_) + q4_groups(d_v_)) * kQ4ScaleBytes;
  }
  return (d_k_ + d_v_) * element_bytes(type_) + (type_ == KvType::kQ8 ? 2 * sizeof(float) : 0);
}

void KvRows::write_q8(const float* k, const float* v, std::size_t slot, std::byte* to) const noexcept {
  alignas(kCacheLine) std::int8_t row_bytes[kMostChannels];
  auto* const scales = reinterpret_cast<float*>(to);
  scales[slot] = quantize_row(*dense_, k, d_k_, row_bytes).scale;
  std::size_t i = 0;
  for (; i < in_squares(quads(d_k_)); i += kLanes) {
    std::memcpy(to + keys_offset() + open_q8_key_index(slot, i, d_k_), row_bytes + i * kQuad, kLanes * kQuad);
  }
  for (; i < quads(d_k_); ++i) {
    std::memcpy(to + keys_offset() + q8_key_index(slot, i, d_k_), row_bytes + i * kQuad, kQuad);
  }
  scales[kPageSlots + slot] = quantize_row(*dense_, v, d_v_, row_bytes).scale;
  auto* const row = reinterpret_cast<std::int8_t*>(to + values_offset()) + q8_value_index(slot, 0, d_v_);
  for (std::size_t d = 0; d < d_v_; ++d) row[d * kQuad] = row_bytes[d];
}

void KvRows::write_q4(const float* k, const float* v, std::size_t slot, std::byte* to) const noexcept {
  alignas(kCacheLine) std::uint8_t steps[kMostChannels];
  std::uint16_t scales[q4_groups(kMostChannels)];
  const auto joined = [&steps](std::size_t low, std::size_t high) {
    return static_cast<std::byte>(steps[low] | steps[high] << 4);
  };
  attention_->quantize_q4(k, d_k_, steps, scales);
  for (std::size_t g = 0; g < q4_groups(d_k_); ++g) {
    std::memcpy(to + q4_key_scale_index(slot, g, d_k_), &scales[g], kQ4ScaleBytes);
  }
  std::byte* const row = to + open_q4_key_index(slot, 0, d_k_);
  for (std::size_t d = 0; d < octets(d_k_) * kQuad; ++d) {
    const std::size_t channel = d / kQuad * kOctet + d % kQuad;
    row[d] = joined(channel, channel + kQuad);
  }
  attention_->quantize_q4(v, d_v_, steps, scales);
  std::byte* const values = to + values_offset();
  for (std::size_t g = 0; g < q4_groups(d_v_); ++g) {
    std::memcpy(values + q4_value_scale_index(slot, g), &scales[g], kQ4ScaleBytes);
    for (std::size_t c = 0; c < kLanes; ++c) {
      values[q4_value_index(slot, g, c)] = joined(g * kQ4Group + c, g * kQ4Group + c + kLanes);
    }
  }
}

void KvRows::write(ConstRows k, ConstRows v, std::size_t head, std::size_t begin, std::size_t end,
                   std::size_t first_slot, std::byte* to) const noexcept {
  std::byte* const values = to + values_offset();
  for (std::size_t t = begin; t < end; ++t) {
    const float* const key = k.row(t) + head * d_k_;
    const float* const value = v.row(t) + head * d_v_;
    const std::size_t slot = first_slot + t - begin;
    switch (type_) {
      case KvType::kF32:
        write_floats(key, value, d_k_, d_v_, slot, reinterpret_cast<float*>(to),
                     reinterpret_cast<float*>(values));
        break;
      case KvType::kBf16:
        write_floats(key, value, d_k_, d_v_, slot, reinterpret_cast<std::uint16_t*>(to),
                     reinterpret_cast<std::uint16_t*>(values));
        break;
      case KvType::kQ8:
        write_q8(key, value, slot, to);
        break;
      case KvType::kQ4:
        write_q4(key, value, slot, to);
        break;
    }
    if (slot % kLanes == kLanes - 1) turn_group(slot, false, to);
  }
}

void KvRows::turn_group(std::size_t slot, bool open, std::byte* part) const noexcept {
  std::byte* const keys = part + keys_offset();
  const std::size_t first = slot / kLanes * kLanes;
  if (type_ == KvType::kQ4) return turn_q4_group(keys + q4_key_index(first, 0, d_k_), octets(d_k_), open);
  const std::size_t end = in_squares(type_ == KvType::kQ8 ? quads(d_k_) : d_k_);
  for (std::size_t d = 0; d < end; d += kLanes) {
    switch (type_) {
      case KvType::kF32:
        turn_square(reinterpret_cast<float*>(keys) + key_index(first, d, d_k_), kKeyTile);
        break;
      case KvType::kBf16:
        turn_square(reinterpret_cast<std::uint16_t*>(keys) + key_index(first, d, d_k_), kKeyTile);
        break;
      case KvType::kQ8:
        turn_square(reinterpret_cast<std::uint32_t*>(keys + q8_key_index(first, d, d_k_)), kLanes);
        break;
      case KvType::kQ4:
        break;
    }
  }
}

void KvRows::prefetch(std::size_t n_slots, const std::byte* part) const noexcept {
  const std::byte* const keys = part + keys_offset();
  const std::size_t in_groups = (n_slots + kLanes - 1) / kLanes * kLanes;
  if (type_ == KvType::kQ4) {
    prefetch_bytes(keys, in_groups / kLanes * q4_key_run(d_k_));
    for (std::size_t g = 0; g < q4_groups(d_v_); ++g) {
      prefetch_bytes(part + values_offset() + q4_value_scale_index(0, g), in_groups * kQ4ScaleBytes);
      prefetch_bytes(part + values_offset() + q4_value_index(0, g, 0), in_groups * kLanes);
    }
    return;
  }
  const std::size_t element = element_bytes(type_);
  if (type_ == KvType::kQ8) {
    prefetch_bytes(part, in_groups * sizeof(float));
    prefetch_bytes(part + kPageSlots * sizeof(float), in_groups * sizeof(float));
    prefetch_bytes(keys, q8_key_index(in_groups, 0, d_k_));
  } else {
    for (std::size_t slot = 0; slot < in_groups; slot += kKeyTile) {
      const std::size_t row = std::min(kKeyTile, in_groups - slot) * element;
      for (std::size_t d = 0; d < d_k_; ++d) prefetch_bytes(keys + key_index(slot, d, d_k_) * element, row);
    }
  }
  prefetch_bytes(part + values_offset(), in_groups * padded_width(d_v_) * element);
}

void KvRows::clear_q4(std::size_t first_slot, std::byte* part) const noexcept {
  std::byte* const values = part + values_offset();
  for (std::size_t slot = first_slot; slot < kPageSlots; ++slot) {
    for (std::size_t g = 0; g < q4_groups(d_k_); ++g) {
      std::memset(part + q4_key_scale_index(slot, g, d_k_), 0, kQ4ScaleBytes);
    }
    for (std::size_t i = 0; i < octets(d_k_); ++i) std::memset(part + q4_key_index(slot, i, d_k_), 0, kQuad);
    for (std::size_t g = 0; g < q4_groups(d_v_); ++g) {
      std::memset(values + q4_value_scale_index(slot, g), 0, kQ4ScaleBytes);
      for (std::size_t c = 0; c < kLanes; ++c) values[q4_value_index(slot, g, c)] = std::byte{0};
    }
  }
}

void KvRows::clear(std::size_t first_slot, std::byte* part) const noexcept {
  std::byte* const values = part + values_offset();
  if (type_ == KvType::kQ4) return clear_q4(first_slot, part);
  const std::size_t element = element_bytes(type_);
  const std::size_t value_row = padded_width(d_v_) * element;
  for (std::size_t slot = first_slot; slot < kPageSlots; ++slot) {
    if (type_ != KvType::kQ8) {
      for (std::size_t d = 0; d < d_k_; ++d) {
        std::memset(part + key_index(slot, d, d_k_) * element, 0, element);
      }
      std::memset(values + slot * value_row, 0, value_row);
      continue;
    }
    for (std::size_t i = 0; i < quads(d_k_); ++i) {
      std::memset(part + keys_offset() + q8_key_index(slot, i, d_k_), 0, kQuad);
    }
    for (std::size_t d = 0; d < d_v_; ++d) values[q8_value_index(slot, d, d_v_)] = std::byte{0};
    auto* const scales = reinterpret_cast<float*>(part);
    scales[slot] = scales[kPageSlots + slot] = 0;
  }
}

}  // namespace terrace
