// SPDX-License-Identifier: Apache-2.0
#include "engine/row_codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "engine/dtype.h"

namespace terrace {
namespace {

constexpr int kQ8Max = 127;
constexpr int kQ4Zero = 8;  // the nibble that stands for 0
constexpr int kQ4Low = -8;
constexpr int kQ4High = 7;
constexpr std::size_t kHalf = kQ4Columns / 2;

template <class T>
T load(const std::byte* p, std::size_t i) noexcept {
  T value;
  std::memcpy(&value, p + i * sizeof(T), sizeof(T));
  return value;
}

template <class T>
void store(std::byte* p, std::size_t i, T value) noexcept {
  std::memcpy(p + i * sizeof(T), &value, sizeof(T));
}

int nearest(float x, int low, int high) noexcept {
  return std::clamp(static_cast<int>(std::nearbyint(x)), low, high);
}

struct Q4Group {
  std::array<int, kQ4Group> q{};
  float scale = 0;  ///< as stored, rounded to bf16
  float error = 0;  ///< squared
};

/// The group's elements in steps of about `scale`, which is then replaced by the best one for those steps.
Q4Group fit_group(const float* w, float scale) noexcept {
  Q4Group group;
  double wq = 0;
  double qq = 0;
  for (std::size_t i = 0; i < kQ4Group; ++i) {
    group.q[i] = nearest(w[i] / scale, kQ4Low, kQ4High);
    wq += static_cast<double>(w[i]) * group.q[i];
    qq += static_cast<double>(group.q[i]) * group.q[i];
  }
  group.scale = bf16_to_f32(f32_to_bf16(qq > 0 ? static_cast<float>(wq / qq) : scale));
  for (std::size_t i = 0; i < kQ4Group; ++i) {
    const float difference = w[i] - group.scale * static_cast<float>(group.q[i]);
    group.error += difference * difference;
  }
  return group;
}

/// Tries scales that put the element of largest magnitude at -8 (the longer side of the range) or a little
/// inside and outside of it, and keeps the one with the least squared error.
Q4Group best_group(const float* w) noexcept {
  const float extreme =
      *std::max_element(w, w + kQ4Group, [](float a, float b) { return std::abs(a) < std::abs(b); });
  if (extreme == 0) return {};
  Q4Group best;
  best.error = INFINITY;
  constexpr int kTrials = 9;
  constexpr float kSpacing = 0.2F;
  for (int trial = -kTrials; trial <= kTrials; ++trial) {
    const float steps = static_cast<float>(kQ4Low) + kSpacing * static_cast<float>(trial);
    const Q4Group group = fit_group(w, extreme / steps);
    if (group.error < best.error) best = group;
  }
  return best;
}

void encode_q4(const float* row, std::size_t n, std::byte* data, std::byte* scale) noexcept {
  for (std::size_t run = 0; run < n / kQ4Columns; ++run) {
    const Q4Group low = best_group(row + run * kQ4Columns);
    const Q4Group high = best_group(row + run * kQ4Columns + kHalf);
    store(scale, 2 * run, f32_to_bf16(low.scale));
    store(scale, 2 * run + 1, f32_to_bf16(high.scale));
    for (std::size_t b = 0; b < kHalf; ++b) {
      data[run * kHalf + b] = static_cast<std::byte>((low.q[b] + kQ4Zero) | (high.q[b] + kQ4Zero) << 4);
    }
  }
}

void encode_q8(const float* row, std::size_t n, std::byte* data, std::byte* scale) noexcept {
  float largest = 0;
  for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(row[i]));
  const float step = largest / kQ8Max;
  store(scale, 0, step);
  for (std::size_t i = 0; i < n; ++i) {
    store(data, i, static_cast<std::int8_t>(step > 0 ? nearest(row[i] / step, -kQ8Max, kQ8Max) : 0));
  }
}

}  // namespace

void decode_row(DType dtype, const std::byte* data, const std::byte* scale, std::size_t n,
                float* row) noexcept {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(row, data, n * sizeof(float));
      return;
    case DType::kBf16:
      for (std::size_t i = 0; i < n; ++i) row[i] = bf16_to_f32(load<std::uint16_t>(data, i));
      return;
    case DType::kQ8:
      for (std::size_t i = 0; i < n; ++i) row[i] = load<float>(scale, 0) * load<std::int8_t>(data, i);
      return;
    case DType::kQ4:
      for (std::size_t i = 0; i < n; ++i) {
        const std::size_t place = i % kQ4Columns;
        const auto pair = static_cast<unsigned>(data[i / kQ4Columns * kHalf + place % kHalf]);
        const int q = static_cast<int>(place < kHalf ? pair & 0xF : pair >> 4) - kQ4Zero;
        row[i] = bf16_to_f32(load<std::uint16_t>(scale, i / kQ4Group)) * static_cast<float>(q);
      }
      return;
  }
}

void encode_row(DType dtype, const float* row, std::size_t n, std::byte* data, std::byte* scale) noexcept {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(data, row, n * sizeof(float));
      return;
    case DType::kBf16:
      for (std::size_t i = 0; i < n; ++i) store(data, i, f32_to_bf16(row[i]));
      return;
    case DType::kQ8:
      encode_q8(row, n, data, scale);
      return;
    case DType::kQ4:
      encode_q4(row, n, data, scale);
      return;
  }
}

}  // namespace terrace
