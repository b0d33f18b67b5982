// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>

namespace terrace {

/// The largest of some numbers and its index; the first on ties. NaN and -inf are never taken.
struct Largest {
  static constexpr std::uint32_t kNowhere = std::numeric_limits<std::uint32_t>::max();

  float value = -std::numeric_limits<float>::infinity();
  std::uint32_t index = kNowhere;

  /// Takes the numbers z[0 .. n), the first of which has index `first`. Cost: most runs of 64 are skipped
  /// because of their maximum.
  void take(const float* z, std::size_t n, std::size_t first) noexcept {
    constexpr std::size_t kRun = 64;
    for (std::size_t i = 0; i < n; i += kRun) {
      const std::size_t count = std::min(kRun, n - i);
      if (!any_at_least(z + i, count, value)) continue;
      for (std::size_t k = i; k < i + count; ++k) take({z[k], static_cast<std::uint32_t>(first + k)});
    }
  }
  void take(const Largest& other) noexcept {
    const bool before = other.value == value && other.index < index && index != kNowhere;
    if (other.value > value || before) *this = other;
  }

  /// Whether any z[i] >= limit, many at a time.
  static bool any_at_least(const float* z, std::size_t n, float limit) noexcept {
    constexpr std::size_t kAtOnce = 16;
    float largest[kAtOnce];
    std::fill_n(largest, kAtOnce, -std::numeric_limits<float>::infinity());
    std::size_t i = 0;
    for (; i + kAtOnce <= n; i += kAtOnce) {
      for (std::size_t l = 0; l < kAtOnce; ++l) largest[l] = z[i + l] > largest[l] ? z[i + l] : largest[l];
    }
    const auto reaches = [limit](float x) { return x >= limit; };
    return std::any_of(largest, largest + kAtOnce, reaches) || std::any_of(z + i, z + n, reaches);
  }
};

/// Writes the indices of the k (1..n) largest values of z[0..n) to `largest`, ascending: the first ones on
/// ties, a NaN last. `scratch` holds n.
inline void take_largest(const float* z, std::size_t n, std::size_t k, std::uint32_t* scratch,
                         std::uint32_t* largest) noexcept {
  const auto value = [z](std::uint32_t i) {
    return std::isnan(z[i]) ? -std::numeric_limits<float>::infinity() : z[i];
  };
  std::iota(scratch, scratch + n, 0U);
  std::nth_element(scratch, scratch + (k - 1), scratch + n, [&](std::uint32_t a, std::uint32_t b) {
    return value(a) > value(b) || (value(a) == value(b) && a < b);
  });
  std::sort(scratch, scratch + k);
  std::copy_n(scratch, k, largest);
}

}  // namespace terrace
