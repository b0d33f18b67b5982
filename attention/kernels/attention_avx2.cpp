// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "attention/kernels/attention_impl.h"
#include "attention/kernels/xsimd_lanes.h"

namespace terrace {
namespace {

struct Avx2 : XsimdLanes<xsimd::fma3<xsimd::avx2>> {
  static constexpr std::size_t kAccumulators = 8;

  using XsimdLanes::load;
  static F load(const std::uint16_t* p) noexcept {
    const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
  }

  static float fold(const F* parts) noexcept {
    const __m256 eight = _mm256_add_ps(parts[0], parts[1]);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static float fold_max(const F* parts) noexcept {
    const __m256 eight = _mm256_max_ps(parts[0], parts[1]);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
};

constexpr AttentionKernels kTable = make_attention_kernels<Avx2>(Isa::kAvx2, "avx2");

}  // namespace

const AttentionKernels& attention_kernels_avx2() noexcept { return kTable; }

}  // namespace terrace
