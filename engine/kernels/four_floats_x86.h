// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <immintrin.h>

#include <cstddef>

// Four floats that lie `step` apart. With a temporary array the vector load would wait for four narrow
// stores.

namespace terrace {
namespace {

inline __m128 load_four(const float* p, std::size_t step) noexcept {
  return step == 1 ? _mm_loadu_ps(p) : _mm_setr_ps(p[0], p[step], p[2 * step], p[3 * step]);
}

inline void store_four(float* p, std::size_t step, __m128 v) noexcept {
  if (step == 1) return _mm_storeu_ps(p, v);
  _mm_store_ss(p, v);
  _mm_store_ss(p + step, _mm_movehdup_ps(v));
  _mm_store_ss(p + 2 * step, _mm_movehl_ps(v, v));
  _mm_store_ss(p + 3 * step, _mm_shuffle_ps(v, v, 0xff));
}

/// y[k * step] = float(totals[k]) * (w_scale[k * step] * x_scale), k < 4.
inline void put_scaled(__m128i totals, const float* w_scale, float x_scale, float* y,
                       std::size_t step) noexcept {
  const __m128 scales = _mm_mul_ps(load_four(w_scale, step), _mm_set1_ps(x_scale));
  store_four(y, step, _mm_mul_ps(_mm_cvtepi32_ps(totals), scales));
}

}  // namespace
}  // namespace terrace
