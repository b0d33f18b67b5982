// SPDX-License-Identifier: Apache-2.0
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// GCC's own AVX-512 header starts some results from a deliberately undefined register (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "engine/kernels/lanes.h"
#include "engine/kernels/xsimd_lanes.h"

namespace terrace {
namespace {

inline __m512i load_bytes(const void* p) noexcept { return _mm512_loadu_si512(p); }

/// The four bytes at p in every lane.
inline __m512i broadcast_four(const void* p) noexcept {
  std::int32_t four;
  std::memcpy(&four, p, sizeof four);
  return _mm512_set1_epi32(four);
}

struct Avx512Lanes : XsimdLanes<xsimd::avx512bw> {
  static F fma(F a, F b, F c) noexcept { return _mm512_fmadd_ps(a, b, c); }

  using XsimdLanes::load;
  static F load(const std::uint16_t* p) noexcept {
    const __m256i sixteen = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(sixteen), 16));
  }
  static F load(const std::int8_t* p) noexcept {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static F times_power(F p, F n) noexcept {
    const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(n), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), exponent));
  }
  // Fours of rows become fours of columns in every quarter of a register; then quarters are gathered.
  static void transpose(F* rows) noexcept {
    __m512 fours[16];
    TERRACE_UNROLL
    for (std::size_t i = 0; i < 16; i += 4) {
      const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(rows[i], rows[i + 1]));
      const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(rows[i], rows[i + 1]));
      const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(rows[i + 2], rows[i + 3]));
      const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(rows[i + 2], rows[i + 3]));
      fours[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
      fours[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
      fours[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
      fours[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    TERRACE_UNROLL
    for (std::size_t j = 0; j < 4; ++j) {
      const __m512 a = _mm512_shuffle_f32x4(fours[j], fours[4 + j], 0x44);
      const __m512 b = _mm512_shuffle_f32x4(fours[j], fours[4 + j], 0xee);
      const __m512 c = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], 0x44);
      const __m512 d = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], 0xee);
      rows[j] = _mm512_shuffle_f32x4(a, c, 0x88);
      rows[4 + j] = _mm512_shuffle_f32x4(a, c, 0xdd);
      rows[8 + j] = _mm512_shuffle_f32x4(b, d, 0x88);
      rows[12 + j] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
  }

  using Ints = __m512i;
  static Ints to_ints(F x) noexcept { return _mm512_cvtps_epi32(x); }
  static void store_i8(std::int8_t* q, const Ints* parts) noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtepi32_epi8(parts[0]));
  }
  static void store_i16(std::int16_t* s, const Ints* parts) noexcept {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(s), _mm512_cvtepi32_epi16(parts[0]));
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

}  // namespace
}  // namespace terrace
