// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <span>
#include <string>

namespace terrace::bench {

/// Largest difference of two results relative to the largest value of the second.
inline double difference(std::span<const float> a, std::span<const float> b) {
  double worst = 0.0;
  double largest = 1e-30;
  for (std::size_t i = 0; i < b.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return worst / largest;
}

/// Results are checked before they are timed: a wrong one ends the program.
inline void require(bool holds, const std::string& what) {
  if (holds) return;
  fmt::print(stderr, "wrong result: {}\n", what);
  std::exit(1);
}

}  // namespace terrace::bench
