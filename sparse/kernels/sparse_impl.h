// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <xsimd/xsimd.hpp>

// Bodies written once for every vector width; each ISA file includes this header and names its xsimd
// architecture.

namespace terrace {
namespace {

/// Each lane keeps its best value and that value's index (as a float: exact below 2^24, and it blends with
/// the same mask). `>` is false for NaN and for equal values, so a lane keeps its first maximum; across lanes
/// the lowest index wins.
template <class Arch>
std::uint32_t biased_argmax(const float* z, const float* bias, std::size_t n) noexcept {
  using F32 = xsimd::batch<float, Arch>;
  constexpr std::size_t kWidth = F32::size;
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  alignas(64) float lane_best[kWidth];
  alignas(64) float lane_index[kWidth];
  for (std::size_t l = 0; l < kWidth; ++l) lane_index[l] = static_cast<float>(l);

  F32 best(kLowest);
  F32 best_index(0.0F);
  F32 index = F32::load_aligned(lane_index);
  std::size_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const F32 value = F32::load_unaligned(z + i) + F32::load_unaligned(bias + i);
    const auto better = value > best;
    best = xsimd::select(better, value, best);
    best_index = xsimd::select(better, index, best_index);
    index = index + F32(static_cast<float>(kWidth));
  }
  best.store_aligned(lane_best);
  best_index.store_aligned(lane_index);

  float top = kLowest;
  for (std::size_t l = 0; l < kWidth; ++l) top = lane_best[l] > top ? lane_best[l] : top;
  // Without branches: which lane wins is unpredictable. All lanes at -inf have index 0.
  constexpr auto kNone = static_cast<float>(1U << 24);
  float first = kNone;
  for (std::size_t l = 0; l < kWidth; ++l) {
    const float candidate = lane_best[l] == top ? lane_index[l] : kNone;
    first = candidate < first ? candidate : first;
  }
  auto winner = static_cast<std::uint32_t>(first);
  for (; i < n; ++i) {
    const float value = z[i] + bias[i];
    if (value > top) {
      top = value;
      winner = static_cast<std::uint32_t>(i);
    }
  }
  return winner;
}

}  // namespace
}  // namespace terrace
