// SPDX-License-Identifier: Apache-2.0
#if defined(__GNUC__) && !defined(__clang__)
// GCC's own AVX-512 header starts some results from a deliberately undefined register (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "attention/kernels/attention_impl.h"
#include "attention/kernels/xsimd_lanes.h"

namespace terrace {
namespace {

struct Avx512 : XsimdLanes<xsimd::avx512bw> {
  static constexpr std::size_t kAccumulators = 8;

  using XsimdLanes::load;
  static F load(const std::uint16_t* p) noexcept {
    const __m256i sixteen = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(sixteen), 16));
  }

  static float fold(const F* parts) noexcept {
    const __m512 all = parts[0];
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static float fold_max(const F* parts) noexcept {
    const __m512 all = parts[0];
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
};

constexpr AttentionKernels kTable = make_attention_kernels<Avx512>(Isa::kAvx512, "avx512");

}  // namespace

const AttentionKernels& attention_kernels_avx512() noexcept { return kTable; }

}  // namespace terrace
