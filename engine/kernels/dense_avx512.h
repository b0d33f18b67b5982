// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "engine/kernels/dense_impl.h"
#include "engine/kernels/lanes_avx512.h"  // silences a warning of immintrin.h, so it comes first

#include "engine/kernels/four_floats_x86.h"
#include "engine/kernels/words_x86.h"

// What the two AVX-512 tables share: everything but the products of bytes.

namespace terrace {
namespace {

struct Avx512Common : Avx512Lanes {
  // 4 x 6 outputs of one register each leave eight for activations and weights. Widening four groups of bf16
  // costs as much as eight multiply-adds, for any number of tokens: 4 x 4 is 10 % slower (bench_sparse_qkv).
  static constexpr std::size_t kRows = 4;
  static constexpr std::size_t kTokens = 6;
  static constexpr std::size_t kStreams = 4;
  // Emerald Rapids gains up to 60 % by software prefetch 2-8 KB ahead: its hardware prefetcher stops at page
  // borders. Zen 4 loses 15-20 % by it: there dense_kernels() takes a table without (make_unprefetched).
  static constexpr std::size_t kPrefetch = 2048;

  static F keep(F v) noexcept {
    asm("" : "+v"(v.data));
    return v;
  }

  template <class T>
  static F load_tight(const T* p) noexcept {
    return load(p);
  }

  static constexpr bool kNanStoresZero = true;  // the lowest byte of 0x80000000

  struct Words {
    static constexpr std::size_t kColumns = 64;
    struct Pair {
      __m512i low, high;
    };
    static Pair load(const std::int16_t* s) noexcept { return {load_bytes(s), load_bytes(s + 32)}; }
    static void store(std::int16_t* s, Pair v) noexcept {
      _mm512_storeu_si512(s, v.low);
      _mm512_storeu_si512(s + 32, v.high);
    }
    static Pair arranged(Pair v) noexcept {
      return {_mm512_shuffle_i64x2(v.low, v.high, 0x88), _mm512_shuffle_i64x2(v.low, v.high, 0xdd)};
    }
    static Pair times_256(const std::int8_t* w) noexcept {
      const __m512i bytes = load_bytes(w), zero = _mm512_setzero_si512();
      return {_mm512_unpacklo_epi8(zero, bytes), _mm512_unpackhi_epi8(zero, bytes)};
    }
    static Pair set(std::int16_t a) noexcept { return {_mm512_set1_epi16(a), _mm512_set1_epi16(a)}; }
    static Pair multiply(Pair a, Pair b) noexcept {
      return {_mm512_mulhrs_epi16(a.low, b.low), _mm512_mulhrs_epi16(a.high, b.high)};
    }
    static Pair larger(Pair largest, Pair a) noexcept {
      return {_mm512_max_epi16(largest.low, _mm512_abs_epi16(a.low)),
              _mm512_max_epi16(largest.high, _mm512_abs_epi16(a.high))};
    }
    static std::uint32_t fold(Pair largest) noexcept {
      const __m512i both = _mm512_max_epi16(largest.low, largest.high);
      const __m256i half = _mm256_max_epi16(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1));
      return largest_word(_mm_max_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
    }
    static void store_i8(std::int8_t* q, Pair v) noexcept {
      _mm512_storeu_si512(q, _mm512_packs_epi16(v.low, v.high));
    }
  };
  static void unpack_q4(const std::uint8_t* p, std::int8_t* out) noexcept {
    const __m512i twice = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    const __m512i count = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
    const __m512i nibbles = _mm512_and_si512(_mm512_srlv_epi16(twice, count), _mm512_set1_epi8(15));
    _mm512_storeu_si512(out, _mm512_sub_epi8(nibbles, _mm512_set1_epi8(8)));
  }

  /// A round of q4: everything but the products. The sums of a row are in two registers, groups 0 and 2 (low
  /// nibbles) and groups 1 and 3 (high nibbles), eight parts of each. Those of four rows are added up into
  /// quarters of a register: groups 0 and 1 of rows 0 and 1, groups 2 and 3 of the same, then rows 2 and 3.
  /// `Products` has products(w, x, x_eight), sums of four products minus 8 x.
  template <class Products>
  struct Q4Round {
    struct W {
      __m512i low, high;  // 0..15
    };
    static W load_w(const std::uint8_t* p) noexcept {
      const __m512i mask = _mm512_set1_epi8(15);
      const __m512i bytes = load_bytes(p);
      return {_mm512_and_si512(bytes, mask), _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask)};
    }
    /// Activations as they meet the nibbles.
    static W activations(const std::int8_t* q) noexcept {
      const __m512i first = load_bytes(q);
      const __m512i second = load_bytes(q + kQ4Columns);
      return {_mm512_shuffle_i64x2(first, second, 0x44), _mm512_shuffle_i64x2(first, second, 0xee)};
    }
    struct X {
      W x;
      __m512i low_eight, high_eight;  // what products() takes for 8 x
    };
    static void sums(const W (&w)[4], const X& x, F (&out)[1]) noexcept {
      __m512i row[4];
      TERRACE_UNROLL
      for (std::size_t r = 0; r < 4; ++r) {
        row[r] = row_sums(Products::products(w[r].low, x.x.low, x.low_eight),
                          Products::products(w[r].high, x.x.high, x.high_eight));
      }
      out[0] = four_rows(row);
    }
    /// Groups 0 and 1 in the lower half, 2 and 3 in the upper; each has parts in two quarters there.
    static __m512i row_sums(__m512i low, __m512i high) noexcept {
      return _mm512_add_epi32(_mm512_unpacklo_epi32(low, high), _mm512_unpackhi_epi32(low, high));
    }
    static F four_rows(const __m512i (&row)[4]) noexcept {
      const auto two = [](__m512i a, __m512i b) {
        return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
      };
      const __m512i first = two(row[0], row[1]);
      const __m512i second = two(row[2], row[3]);
      return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_shuffle_i32x4(first, second, 0x88),
                                                 _mm512_shuffle_i32x4(first, second, 0xdd)));
    }
    static void scales(const std::uint16_t* const (&p)[4], std::size_t i, F (&out)[1]) noexcept {
      const auto two = [i](const std::uint16_t* a, const std::uint16_t* b) {
        return _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(a + i)),
                                  _mm_loadl_epi64(reinterpret_cast<const __m128i*>(b + i)));
      };
      const __m256i by_row = _mm256_set_m128i(two(p[2], p[3]), two(p[0], p[1]));
      const __m512i in_order = _mm512_cvtepu16_epi32(_mm256_shuffle_epi32(by_row, 0xd8));
      out[0] = _mm512_castsi512_ps(_mm512_slli_epi32(in_order, 16));
    }
    static void fold(const F (&sum)[1], float* out) noexcept {
      const auto rows = [](__m256 v) {
        return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
      };
      const __m512 all = sum[0];
      _mm_storeu_ps(out,
                    _mm_hadd_ps(rows(_mm512_castps512_ps256(all)), rows(_mm512_extractf32x8_ps(all, 1))));
    }
  };

  /// The bytes of a step that has only n < 64 columns, then zeros.
  static __m512i load_part(const std::int8_t* p, std::size_t n) noexcept {
    return _mm512_maskz_loadu_epi8((__mmask64{1} << n) - 1, p);
  }

  /// The sums of the lanes of four registers.
  static __m128i sums_of_lanes(__m512i a, __m512i b, __m512i c, __m512i d) noexcept {
    const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    const __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  }
  static std::int32_t sum_of_lanes(__m512i v) noexcept {
    const __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
  }

  // Four streams, as the dot kernels have.
  template <std::size_t Ahead>
  static std::uint64_t read_streams(const void* data, std::size_t n) noexcept {
    constexpr std::size_t kLine = 64;
    const char* const p = static_cast<const char*>(data);
    const std::size_t part = n / kLine / 4 * kLine;
    __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                      _mm512_setzero_si512()};
    for (std::size_t i = 0; i < part; i += kLine) {
      TERRACE_UNROLL
      for (std::size_t k = 0; k < 4; ++k) {
        if constexpr (Ahead > 0) __builtin_prefetch(p + k * part + i + Ahead);
        sum[k] = _mm512_xor_si512(sum[k], load_bytes(p + k * part + i));
      }
    }
    for (std::size_t i = 4 * part; i < n; i += kLine) sum[0] = _mm512_xor_si512(sum[0], load_bytes(p + i));
    const __m512i all = _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]), _mm512_xor_si512(sum[2], sum[3]));
    const __m256i four = _mm256_xor_si256(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    const __m128i two = _mm_xor_si128(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
    return static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_xor_si128(two, _mm_unpackhi_epi64(two, two))));
  }
  static std::uint64_t read(const void* data, std::size_t n) noexcept {
    return read_streams<kPrefetch>(data, n);
  }
};

template <class S>
struct Unprefetched : S {
  static constexpr std::size_t kPrefetch = 0;
};

/// `table` without software prefetch in sequential reads, for CPUs that do it better themselves.
template <class S>
constexpr DenseKernels make_unprefetched(DenseKernels table) noexcept {
  table.dot_f32 = dot<Unprefetched<S>, float>;
  table.dot_bf16 = dot<Unprefetched<S>, std::uint16_t>;
  table.dot_q8 = dot_q8<Unprefetched<S>>;
  table.dot_q4 = dot_q4<Unprefetched<S>>;
  table.read = S::template read_streams<0>;
  return table;
}

}  // namespace
}  // namespace terrace
