// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include <xsimd/xsimd.hpp>

#include "engine/kernels/dense_impl.h"

namespace terrace {
namespace {

struct Avx2 {
  using F32 = xsimd::batch<float, xsimd::fma3<xsimd::avx2>>;
  static constexpr std::size_t kRows = 2;
  static constexpr std::size_t kTokens = 3;
  static constexpr std::size_t kRowsOneToken = 4;

  static F32 fma(F32 a, F32 b, F32 c) noexcept { return _mm256_fmadd_ps(a, b, c); }

  // Both halves of the register get the same 16 bytes by the load; one shuffle then moves each word to the
  // upper half of its lane: one shuffle per 8 weights where widening and shifting would take two operations.
  static F32 widen_bf16(const std::uint16_t* p) noexcept {
    const __m256i order = _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7,  //
                                           -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
    const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_shuffle_epi8(twice, order));
  }

  static float fold(const F32* parts) noexcept {
    const __m256 eight = _mm256_add_ps(parts[0], parts[1]);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
};

}  // namespace

const DenseKernels& dense_kernels_avx2() noexcept {
  static const DenseKernels table = [] {
    DenseKernels t = dense_kernels_scalar();
    t.isa = Isa::kAvx2;
    t.name = "avx2";
    t.dot_f32 = dot<Avx2, float>;
    t.dot_bf16 = dot<Avx2, std::uint16_t>;
    return t;
  }();
  return table;
}

}  // namespace terrace
