// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>

namespace terrace {

/// softmax(z)[i] of the n logits z(0), z(1), ...
template <class Logits>
float softmax_at(const Logits& z, std::size_t n, std::size_t i) noexcept {
  const float at = z(i);
  float sum = 0.0F;
  for (std::size_t e = 0; e < n; ++e) sum += std::exp(z(e) - at);
  return 1.0F / sum;
}

}  // namespace terrace
