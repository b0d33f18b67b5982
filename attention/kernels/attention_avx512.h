// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>

#include "attention/kernels/attention_impl.h"
#include "engine/kernels/lanes_avx512.h"

// What the two AVX-512 tables share: everything but the products of bytes.

namespace terrace {
namespace {

struct Avx512Common : Avx512Lanes {
  static constexpr std::size_t kAccumulators = 8;

  static void store_i8(std::int8_t* q, const F* parts) noexcept {
    const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(parts[0]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), bytes);
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

  struct Q8Common {
    // Eight groups of value columns (d_v 128) in one pass, or four rows by two groups.
    static constexpr std::size_t kAccumulators = 16;
    static constexpr std::size_t kRows = 4;
    using Sum = __m512i;
    using Keys = __m512i;
    using Values = __m512i;
    static Sum zero() noexcept { return _mm512_setzero_si512(); }
    static Values load_values(const std::int8_t* p) noexcept { return load_bytes(p); }
    static F join(Sum high, Sum low) noexcept {
      return fma(_mm512_cvtepi32_ps(high), set(kHighUnit), _mm512_cvtepi32_ps(low));
    }
    static __m512i quad(const std::int8_t* x) noexcept {
      std::int32_t four;
      std::memcpy(&four, x, sizeof four);
      return _mm512_set1_epi32(four);
    }
  };
};

}  // namespace
}  // namespace terrace
