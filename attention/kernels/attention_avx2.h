// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "attention/kernels/attention_impl.h"
#include "engine/kernels/lanes_avx2.h"

// What the two tables for AVX2 registers share: everything but the products of bytes.

namespace terrace {
namespace {

struct Avx2Common : Avx2Lanes {
  static constexpr std::size_t kAccumulators = 8;

  // Fours of rows become fours of columns in each half of a register; then halves are paired.
  static void transpose(F* rows) noexcept {
    __m256 fours[8];
    TERRACE_UNROLL
    for (std::size_t i = 0; i < 8; i += 4) {
      const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(rows[i], rows[i + 1]));
      const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(rows[i], rows[i + 1]));
      const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(rows[i + 2], rows[i + 3]));
      const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(rows[i + 2], rows[i + 3]));
      fours[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
      fours[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
      fours[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
      fours[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    TERRACE_UNROLL
    for (std::size_t j = 0; j < 4; ++j) {
      rows[j] = _mm256_permute2f128_ps(fours[j], fours[4 + j], 0x20);
      rows[4 + j] = _mm256_permute2f128_ps(fours[j], fours[4 + j], 0x31);
    }
  }

  struct Q8Common {
    static constexpr std::size_t kAccumulators = 8;
    static constexpr std::size_t kRows = 2;
    using Sum = __m256i;
    using Keys = __m256i;
    using Values = __m256i;
    static Sum zero() noexcept { return _mm256_setzero_si256(); }
    static Values load_values(const std::int8_t* p) noexcept { return load_bytes(p); }
    static F join(Sum high, Sum low) noexcept {
      return fma(_mm256_cvtepi32_ps(high), set(kHighUnit), _mm256_cvtepi32_ps(low));
    }
  };

  struct Q4Common {
    using Nibbles = __m256i;
    static void load(const std::uint8_t* p, Nibbles* low, Nibbles* high) noexcept {
      const __m256i bytes = load_bytes(p), mask = _mm256_set1_epi8(15);
      *low = _mm256_and_si256(bytes, mask);
      *high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
    }
    static Q8Common::Sum set(std::int32_t x) noexcept { return _mm256_set1_epi32(x); }
    static F to_floats(Q8Common::Sum sum) noexcept { return _mm256_cvtepi32_ps(sum); }
    static Q8Common::Sum plus(Q8Common::Sum a, Q8Common::Sum b) noexcept { return _mm256_add_epi32(a, b); }
  };
};

}  // namespace
}  // namespace terrace
