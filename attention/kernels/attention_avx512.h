// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "attention/kernels/attention_impl.h"
#include "engine/kernels/lanes_avx512.h"

// What the two AVX-512 tables share: everything but the products of bytes.

namespace terrace {
namespace {

struct Avx512Common : Avx512Lanes {
  static constexpr std::size_t kAccumulators = 8;

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
  };

  struct Q4Common {
    using Nibbles = __m512i;
    static void load(const std::uint8_t* p, Nibbles* low, Nibbles* high) noexcept {
      const __m512i bytes = load_bytes(p), mask = _mm512_set1_epi8(15);
      *low = _mm512_and_si512(bytes, mask);
      *high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask);
    }
    static Q8Common::Sum set(std::int32_t x) noexcept { return _mm512_set1_epi32(x); }
    static F to_floats(Q8Common::Sum sum) noexcept { return _mm512_cvtepi32_ps(sum); }
    static Q8Common::Sum plus(Q8Common::Sum a, Q8Common::Sum b) noexcept { return _mm512_add_epi32(a, b); }
  };
};

}  // namespace
}  // namespace terrace
