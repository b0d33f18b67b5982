// SPDX-License-Identifier: Apache-2.0
#include "engine/quantize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "engine/dtype.h"

namespace terrace {
namespace {

constexpr float kQ8Largest = 127.0F;
constexpr float kQ4Lowest = -8.0F;
constexpr float kQ4Highest = 7.0F;
constexpr float kLeastScale = std::numeric_limits<float>::min();  // the least number that is not denormal

// Where the value of largest magnitude may land, in steps: -8 uses the one step that the negative side has
// more, less than an end in magnitude spares it, more cuts the extreme to refine the many small ones.
constexpr int kTargetsPerStep = 4;
constexpr int kNearestTarget = 5 * kTargetsPerStep;
constexpr int kFarthestTarget = 10 * kTargetsPerStep;
constexpr int kRefinements = 2;

/// Nearest whole number, ties to even, for |x| < 2^22: adding 1.5 * 2^23 leaves no bits for the fraction.
float round_to_even(float x) noexcept {
  constexpr float kMagic = 12582912.0F;
  return (x + kMagic) - kMagic;
}

/// `u` = w / scale as the step that is stored.
float step_of(float u) noexcept { return round_to_even(std::clamp(u, kQ4Lowest, kQ4Highest)); }

/// What a scale does to one group, in units of that scale.
struct Fit {
  float squared_error;  ///< sum of (w / scale - q)^2
  float gain;           ///< the factor for the scale that suits these q best: sum(w / scale * q) / sum(q^2)
};

Fit fit(std::span<const float> group, float scale) noexcept {
  // Lanes of their own, so that the compiler may use vectors.
  std::array<float, kLanes> ee{};
  std::array<float, kLanes> uq{};
  std::array<float, kLanes> qq{};
  for (std::size_t i = 0; i < kQ4Group; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const float u = group[i + lane] / scale;
      const float q = step_of(u);
      ee[lane] += (u - q) * (u - q);
      uq[lane] += u * q;
      qq[lane] += q * q;
    }
  }
  const auto sum = [](const auto& lanes) { return std::accumulate(lanes.begin(), lanes.end(), 0.0F); };
  const float squares = sum(qq);
  return {sum(ee), squares > 0 ? sum(uq) / squares : 1};
}

/// The bf16 scale that loses least on one group; 0 for a group of zeros.
std::uint16_t best_q4_scale(std::span<const float> group) noexcept {
  const float extreme = *std::max_element(group.begin(), group.end(),
                                          [](float a, float b) { return std::abs(a) < std::abs(b); });
  if (std::abs(extreme) < kLeastScale * kFarthestTarget) return 0;
  std::uint16_t best = 0;
  float least = std::numeric_limits<float>::infinity();
  float gain = 1;
  const auto consider = [&](float wanted) {
    const std::uint16_t bits = f32_to_bf16(wanted);
    const float scale = bf16_to_f32(bits);
    const Fit found = fit(group, scale);
    // Relative to the extreme, so that the square of a scale neither overflows nor vanishes.
    const float error = found.squared_error * (scale / extreme) * (scale / extreme);
    if (!(error < least)) return;
    least = error;
    best = bits;
    gain = found.gain;
  };
  for (int target = kNearestTarget; target <= kFarthestTarget; ++target) {
    const float at = static_cast<float>(target) / kTargetsPerStep;
    consider(extreme / -at);
    consider(extreme / at);
  }
  for (int i = 0; i < kRefinements; ++i) consider(gain * bf16_to_f32(best));
  return best;
}

}  // namespace

float quantize_row_q8(std::span<const float> w, std::int8_t* q) noexcept {
  float largest = 0;
  for (const float value : w) largest = std::max(largest, std::abs(value));
  const float scale = largest < kLeastScale * kQ8Largest ? 0 : largest / kQ8Largest;
  for (std::size_t i = 0; i < w.size(); ++i) {
    q[i] = static_cast<std::int8_t>(scale == 0 ? 0 : round_to_even(w[i] / scale));  // |w / scale| <= 127
  }
  return scale;
}

void quantize_row_q4(std::span<const float> w, std::uint8_t* q, std::uint16_t* scale) noexcept {
  constexpr std::size_t kHalf = kQ4Columns / 2;
  static_assert(kHalf == kQ4Group, "a run of 64 columns is two groups: low nibbles, then high nibbles");
  const auto nibble = [](float value, float s) {
    return static_cast<std::uint8_t>(static_cast<int>(s == 0 ? 0 : step_of(value / s)) + kQ4Zero);
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
