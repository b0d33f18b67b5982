// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "engine/kernels/dense_avx512.h"
#include "engine/kernels/lanes_avx512vnni.h"

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

}  // namespace
}  // namespace terrace
