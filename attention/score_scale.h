// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>

namespace terrace {

/// 1 / sqrt(d_k): what scores of queries and keys of d_k channels are multiplied with.
inline float score_scale(std::size_t d_k) noexcept {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(d_k)));
}

}  // namespace terrace
