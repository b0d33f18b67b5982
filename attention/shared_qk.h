// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>

#include "attention/kernels/attention_kernels.h"
#include "engine/exec.h"
#include "engine/tensor.h"

namespace terrace {

// Keys of shared-QK attention: the key of a position is its query brought to length sqrt(d_k); the score
// divides by sqrt(d_k) once more. Source: Trax `length_normalized`.

/// Penalty of a key in the future of the query, and of padding.
inline constexpr float kHiddenPenalty = 1e9F;
/// Penalty of a position attending to itself.
inline constexpr float kSelfPenalty = 1e5F;

/// 1 / sqrt(mean(q^2) + 1e-6).
inline float shared_key_factor(const AttentionKernels& kernels, const float* q, std::size_t d_k) noexcept {
  float squares = 0;
  kernels.dot_rows(q, &q, 1, d_k, 1.0F / static_cast<float>(d_k), &squares);
  return 1.0F / std::sqrt(squares + 1e-6F);
}

/// to = q * shared_key_factor(q).
inline void write_shared_key(const AttentionKernels& kernels, const float* q, std::size_t d_k,
                             float* to) noexcept {
  const float factor = shared_key_factor(kernels, q, d_k);
  for (std::size_t d = 0; d < d_k; ++d) to[d] = q[d] * factor;
}

}  // namespace terrace
