// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "engine/kernels/lanes_avx512.h"

// What the AVX-512 tables share.

namespace terrace {
namespace {

/// The first of the largest values, sixteen at a time.
class FirstLargest {
 public:
  /// `>` keeps a lane's first maximum and never takes a NaN. Lanes outside `there` take nothing.
  void take(__m512 value, __mmask16 there) noexcept {
    const __mmask16 better = _mm512_mask_cmp_ps_mask(there, value, best_, _CMP_GT_OQ);
    best_ = _mm512_mask_mov_ps(best_, better, value);
    best_index_ = _mm512_mask_mov_epi32(best_index_, better, index_);
    index_ = _mm512_add_epi32(index_, _mm512_set1_epi32(16));
  }
  /// The lowest index wins; 0 if nothing was above -inf.
  std::uint32_t index() const noexcept {
    const __mmask16 top = _mm512_cmp_ps_mask(best_, _mm512_set1_ps(_mm512_reduce_max_ps(best_)), _CMP_EQ_OQ);
    return _mm512_mask_reduce_min_epu32(top, best_index_);
  }

 private:
  __m512 best_ = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512i best_index_ = _mm512_setzero_si512();
  __m512i index_ = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
};

inline std::uint32_t biased_argmax(const float* z, const float* bias, std::size_t n) noexcept {
  FirstLargest largest;
  for (std::size_t i = 0; i < n; i += 16) {
    const auto there = static_cast<__mmask16>(n - i >= 16 ? 0xffffU : (1U << (n - i)) - 1);
    largest.take(_mm512_add_ps(_mm512_maskz_loadu_ps(there, z + i), _mm512_maskz_loadu_ps(there, bias + i)),
                 there);
  }
  return largest.index();
}

}  // namespace
}  // namespace terrace
