// SPDX-License-Identifier: Apache-2.0
#include "engine/quantize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "engine/dtype.h"

namespace terrace {
namespace {

constexpr float kQ8Largest = 127.0F;
constexpr float kQ4Lowest = -8.0F;
constexpr float kQ4Highest = 7.0F;
constexpr std::uint8_t kQ4Zero = 8;  // a nibble stands for itself minus this

/// Where the value of largest magnitude may land, in steps. -8 uses the one step that the negative side has
/// more; less than 7 in magnitude cuts the extreme to spare the many small ones.
constexpr std::array kTargets = {-8.0F, -7.5F, -7.0F, 7.0F, 6.5F, -8.5F, -9.0F, 7.5F, 8.0F};

/// w / scale rounded to the nearest step, ties to even; 0 for scale 0.
float step_of(float w, float scale) noexcept {
  return scale == 0 ? 0 : std::clamp(std::nearbyint(w / scale), kQ4Lowest, kQ4Highest);
}

/// The bf16 scale that loses least on one group.
std::uint16_t best_q4_scale(std::span<const float> group) noexcept {
  const float extreme = *std::max_element(group.begin(), group.end(),
                                          [](float a, float b) { return std::abs(a) < std::abs(b); });
  if (extreme == 0) return 0;
  std::uint16_t best = 0;
  float least = std::numeric_limits<float>::infinity();
  for (const float target : kTargets) {
    const std::uint16_t bits = f32_to_bf16(extreme / target);
    const float scale = bf16_to_f32(bits);
    float error = 0;
    for (const float w : group) {
      const float e = w - scale * step_of(w, scale);
      error += e * e;
    }
    if (error < least) {
      least = error;
      best = bits;
    }
  }
  return best;
}

}  // namespace

float quantize_row_q8(std::span<const float> w, std::int8_t* q) noexcept {
  float largest = 0;
  for (const float value : w) largest = std::max(largest, std::abs(value));
  const float scale = largest / kQ8Largest;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const float step = scale == 0 ? 0 : std::clamp(std::nearbyint(w[i] / scale), -kQ8Largest, kQ8Largest);
    q[i] = static_cast<std::int8_t>(step);
  }
  return scale;
}

void quantize_row_q4(std::span<const float> w, std::uint8_t* q, std::uint16_t* scale) noexcept {
  constexpr std::size_t kHalf = kQ4Columns / 2;
  static_assert(kHalf == kQ4Group, "a run of 64 columns is two groups: low nibbles, then high nibbles");
  const auto nibble = [](float value, float s) {
    return static_cast<std::uint8_t>(static_cast<int>(step_of(value, s)) + kQ4Zero);
  };
  for (std::size_t run = 0; run < w.size() / kQ4Columns; ++run) {
    const auto low = w.subspan(run * kQ4Columns, kHalf);
    const auto high = w.subspan(run * kQ4Columns + kHalf, kHalf);
    scale[2 * run] = best_q4_scale(low);
    scale[2 * run + 1] = best_q4_scale(high);
    const float low_scale = bf16_to_f32(scale[2 * run]);
    const float high_scale = bf16_to_f32(scale[2 * run + 1]);
    for (std::size_t b = 0; b < kHalf; ++b) {
      q[run * kHalf + b] =
          static_cast<std::uint8_t>(nibble(low[b], low_scale) | (nibble(high[b], high_scale) << 4));
    }
  }
}

void store_row(DType dtype, std::span<const float> w, std::byte* data, std::byte* scale) noexcept {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(data, w.data(), w.size_bytes());
      return;
    case DType::kBf16:
      for (std::size_t i = 0; i < w.size(); ++i) {
        const std::uint16_t bits = f32_to_bf16(w[i]);
        std::memcpy(data + i * sizeof bits, &bits, sizeof bits);
      }
      return;
    case DType::kQ8: {
      const float row_scale = quantize_row_q8(w, reinterpret_cast<std::int8_t*>(data));
      std::memcpy(scale, &row_scale, sizeof row_scale);
      return;
    }
    case DType::kQ4:
      quantize_row_q4(w, reinterpret_cast<std::uint8_t*>(data), reinterpret_cast<std::uint16_t*>(scale));
      return;
  }
}

}  // namespace terrace
