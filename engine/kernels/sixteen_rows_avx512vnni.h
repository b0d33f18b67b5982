// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/kernels/dense_kernels.h"
#include "engine/kernels/lanes.h"
#include "engine/kernels/lanes_avx512vnni.h"

// Sixteen neighbouring rows of int8 times one activation row: their sums become one register. For short rows,
// of which adding up the lanes is most of the work: a tree over sixteen registers takes three instructions a
// row, and what follows takes all sixteen at once.

namespace terrace {
namespace {

constexpr std::size_t kSixteen = 16;

/// [sum a, sum b] of each quarter register, in turn: half of a step of the tree.
inline __m512i add_pairs32(__m512i a, __m512i b) noexcept {
  return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}
inline __m512i add_pairs64(__m512i a, __m512i b) noexcept {
  return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/// Lane r of the result is the sum of the lanes of sums[r].
inline __m512i add_up(const __m512i* sums) noexcept {
  __m512i quarter[4];  // quarter[i]: sums of 4 i .. 4 i + 3 in every 128 bits, a quarter of each
  TERRACE_UNROLL
  for (std::size_t i = 0; i < 4; ++i) {
    const __m512i* const s = sums + 4 * i;
    quarter[i] = add_pairs64(add_pairs32(s[0], s[1]), add_pairs32(s[2], s[3]));
  }
  // 0x88 and 0xdd take the even and the odd quarters of two registers.
  const __m512i low = _mm512_add_epi32(_mm512_shuffle_i32x4(quarter[0], quarter[1], 0x88),
                                       _mm512_shuffle_i32x4(quarter[0], quarter[1], 0xdd));
  const __m512i high = _mm512_add_epi32(_mm512_shuffle_i32x4(quarter[2], quarter[3], 0x88),
                                        _mm512_shuffle_i32x4(quarter[2], quarter[3], 0xdd));
  return _mm512_add_epi32(_mm512_shuffle_i32x4(low, high, 0x88), _mm512_shuffle_i32x4(low, high, 0xdd));
}

/// Inner products of rows w + r * row_stride, r < kSixteen, with x; all of the rows are there. `ahead`: bytes
/// between what is read and what is prefetched.
template <std::size_t ahead>
inline __m512i dot_sixteen_rows(const std::int8_t* w, std::size_t row_stride, const QuantizedRow& x,
                                std::size_t d) noexcept {
  const __m512i offset = _mm512_set1_epi8(-128);  // makes int8 unsigned, as dpbusd wants one of its operands
  const std::size_t whole = d / 64 * 64;
  const __mmask64 tail = (std::uint64_t{1} << (d - whole)) - 1;
  __m512i sums[kSixteen];
  TERRACE_UNROLL
  for (std::size_t r = 0; r < kSixteen; ++r) sums[r] = _mm512_setzero_si512();
  for (std::size_t i = 0; i < whole; i += 64) {
    const __m512i xs = load_bytes(x.q + i);
    const std::int8_t* row = w + i;
    TERRACE_UNROLL
    for (std::size_t r = 0; r < kSixteen; ++r, row += row_stride) {
      __builtin_prefetch(row + ahead);
      sums[r] = add_products(sums[r], _mm512_xor_si512(load_bytes(row), offset), xs);
    }
  }
  if (tail != 0) {
    const __m512i xs = _mm512_maskz_loadu_epi8(tail, x.q + whole);
    const std::int8_t* row = w + whole;
    TERRACE_UNROLL
    for (std::size_t r = 0; r < kSixteen; ++r, row += row_stride) {
      __builtin_prefetch(row + ahead);
      const __m512i ws = _mm512_xor_si512(_mm512_maskz_loadu_epi8(tail, row), offset);
      sums[r] = add_products(sums[r], ws, xs);
    }
  }
  // Modulo 2^32: the sum with the offset may pass the range of int32, the difference does not.
  const auto too_much = static_cast<std::int32_t>(128U * static_cast<std::uint32_t>(x.sum));
  return _mm512_sub_epi32(add_up(sums), _mm512_set1_epi32(too_much));
}

/// The same for rows of 32 bytes that follow each other without gaps: two to a register.
template <std::size_t ahead>
inline __m512i dot_sixteen_halves(const std::int8_t* w, const QuantizedRow& x) noexcept {
  const __m512i offset = _mm512_set1_epi8(-128);
  const __m512i xs = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x.q)));
  __m512i sums[kSixteen / 2];
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kSixteen / 2; ++i) {
    __builtin_prefetch(w + 64 * i + ahead);
    sums[i] = add_products(_mm512_setzero_si512(), _mm512_xor_si512(load_bytes(w + 64 * i), offset), xs);
  }
  // Quarter registers hold halves of even rows, twice, then halves of odd ones.
  const __m512i first = add_pairs64(add_pairs32(sums[0], sums[1]), add_pairs32(sums[2], sums[3]));
  const __m512i last = add_pairs64(add_pairs32(sums[4], sums[5]), add_pairs32(sums[6], sums[7]));
  const __m512i all =
      _mm512_add_epi32(_mm512_shuffle_i32x4(first, last, 0x88), _mm512_shuffle_i32x4(first, last, 0xdd));
  const __m512i order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  const auto too_much = static_cast<std::int32_t>(128U * static_cast<std::uint32_t>(x.sum));
  return _mm512_sub_epi32(_mm512_permutexvar_epi32(order, all), _mm512_set1_epi32(too_much));
}

/// float(sums[r]) * (w_scale[r] * x_scale), as the other q8 kernels have it.
inline __m512 scaled_sums(__m512i sums, __m512 w_scale, float x_scale) noexcept {
  return _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_mul_ps(w_scale, _mm512_set1_ps(x_scale)));
}

}  // namespace
}  // namespace terrace
