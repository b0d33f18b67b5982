// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "engine/kernels/dense_avx512.h"
#include "engine/kernels/lanes_avx512vnni.h"
#include "engine/kernels/sixteen_rows_avx512vnni.h"

// Products of bytes with VNNI: what the tables avx512vnni and avx512amx share.

namespace terrace {
namespace {

struct Avx512Vnni : Avx512Common {
  // dpbusd multiplies unsigned by signed bytes: w + 128 is unsigned, and 128 times the sum of x is subtracted
  // at the end.
  struct Q8 {
    static constexpr std::size_t kBytes = 64;
    static constexpr std::size_t kRows = 4;
    static constexpr std::size_t kTokens = 4;
    static constexpr std::size_t kStreams = 4;
    static constexpr std::size_t kChains = 4;
    using Sum = __m512i;
    using X = __m512i;
    static Sum zero() noexcept { return _mm512_setzero_si512(); }
    static X load_x(const std::int8_t* q) noexcept { return load_bytes(q); }
    static __m512i load_w(const std::int8_t* p) noexcept {
      return _mm512_xor_si512(load_bytes(p), _mm512_set1_epi8(-128));
    }
    static X load_part_x(const std::int8_t* q, std::size_t n) noexcept { return load_part(q, n); }
    static __m512i load_part_w(const std::int8_t* p, std::size_t n) noexcept {
      return _mm512_xor_si512(load_part(p, n), _mm512_set1_epi8(-128));
    }
    static Sum add(Sum sum, __m512i w, X x) noexcept { return add_products(sum, w, x); }
    static Sum merge(Sum a, Sum b) noexcept { return _mm512_add_epi32(a, b); }
    static std::int32_t total(Sum sum, std::int32_t x_sum) noexcept {
      // Modulo 2^32: the sum with the offset may pass the range of int32, the difference does not.
      return static_cast<std::int32_t>(static_cast<std::uint32_t>(sum_of_lanes(sum)) -
                                       128U * static_cast<std::uint32_t>(x_sum));
    }
    static void put_four(Sum a, Sum b, Sum c, Sum d, const float* w_scale, const QuantizedRow& x, float* y,
                         std::size_t step) noexcept {
      const auto offset = static_cast<std::int32_t>(128U * static_cast<std::uint32_t>(x.sum));
      const __m128i totals = _mm_sub_epi32(sums_of_lanes(a, b, c, d), _mm_set1_epi32(offset));
      put_scaled(totals, w_scale, x.scale, y, step);
    }
  };

  // (n - 8) x = n x - 8 x: the nibbles n are unsigned as they are, and -8 x is the same for all rows.
  struct Q4 : Q4Round<Q4> {
    static constexpr std::size_t kTokens = 4;
    static X load_x(const std::int8_t* q) noexcept {
      const W x = Q4Round<Q4>::activations(q);
      const auto minus_eight = [](__m512i v) {
        const __m512i zero = _mm512_setzero_si512();
        return _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(8), v));
      };
      return {x, minus_eight(x.low), minus_eight(x.high)};
    }
    /// x_eight: -8 x, in sums of four columns.
    static __m512i products(__m512i w, __m512i x, __m512i x_eight) noexcept {
      return _mm512_dpbusd_epi32(x_eight, w, x);
    }
  };
};

/// Rows of at most so many bytes go by sixteens.
constexpr std::size_t kShortRow = 64;

/// dot_q8 with sixteen neighbouring short rows at a time. 1024 rows of 32 channels, the way out of an SRU
/// path, in L2: 2.0 us by four streams, which store one by one; 1.3 by sixteens, 0.6 by halves.
inline void dot_q8_short(const std::int8_t* w, std::size_t row_stride, const float* w_scale,
                         std::size_t n_rows, const QuantizedRow* x, std::size_t n_tokens, std::size_t d,
                         float* y, std::size_t y_stride) noexcept {
  constexpr std::size_t kAhead = 2048;
  constexpr std::size_t kHalf = 32;
  const std::size_t whole = d <= kShortRow ? n_rows / kSixteen * kSixteen : 0;
  const bool halves = d == kHalf && row_stride == kHalf;
  for (std::size_t t = 0; whole > 0 && t < n_tokens; ++t) {
    for (std::size_t r = 0; r < whole; r += kSixteen) {
      const std::int8_t* const rows = w + r * row_stride;
      const __m512i sums = halves ? dot_sixteen_halves<kAhead>(rows, x[t])
                                  : dot_sixteen_rows<kAhead>(rows, row_stride, x[t], d);
      _mm512_storeu_ps(y + t * y_stride + r, scaled_sums(sums, _mm512_loadu_ps(w_scale + r), x[t].scale));
    }
  }
  dot_q8<Avx512Vnni>(w + whole * row_stride, row_stride, w_scale + whole, n_rows - whole, x, n_tokens, d,
                     y + whole, y_stride);
}

}  // namespace
}  // namespace terrace
