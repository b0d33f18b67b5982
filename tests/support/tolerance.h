// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace terrace::test {

/// Error bound of an f32 sum of products in any order: c * d * eps * sum |a_i b_i|, plus what underflow may
/// lose.
template <class A, class B>
double dot_bound(const A* a, const B* b, std::size_t d) {
  constexpr double kSlack = 1.1;  // second-order terms
  double sum = 0;
  for (std::size_t i = 0; i < d; ++i) sum += std::abs(static_cast<double>(a[i]) * static_cast<double>(b[i]));
  const auto n = static_cast<double>(d);
  return kSlack * n * (0.5 * std::numeric_limits<float>::epsilon() * sum + std::numeric_limits<float>::min());
}

/// Distance in units in the last place between two finite floats (0 for +0 and -0).
inline std::int64_t ulp_distance(float a, float b) {
  const auto ordered = [](float v) {
    std::int32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    return bits < 0 ? std::int64_t{std::numeric_limits<std::int32_t>::min()} - bits : std::int64_t{bits};
  };
  return std::abs(ordered(a) - ordered(b));
}

/// Same bits everywhere.
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace terrace::test
