// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/kernels/dense_impl.h"
#include "engine/kernels/lanes_avx512.h"  // silences a warning of immintrin.h, so it comes first

#include "engine/kernels/four_floats_x86.h"

// What the two AVX-512 tables share: everything but the products of bytes.

namespace terrace {
namespace {

struct Avx512Common : Avx512Lanes {
  // 4 x 6 outputs of one register each leave eight for activations and weights. Widening four groups of bf16
  // takes the place of eight multiply-adds, whatever the tokens: 4 x 4 is 10 % slower (bench_sparse_qkv).
  static constexpr std::size_t kRows = 4;
  static constexpr std::size_t kTokens = 6;
  static constexpr std::size_t kStreams = 4;
  // Emerald Rapids gains up to 60 % by software prefetch 2-8 KB ahead: its hardware prefetcher stops at page
  // borders. Zen 4 loses 15-20 % by it: dense_kernels() takes a table without there (make_unprefetched).
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
  static void store_i8(std::int8_t* q, const F* parts) noexcept {
    const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(parts[0]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), bytes);
  }
  static void unpack_q4(const std::uint8_t* p, std::int8_t* out) noexcept {
    _mm512_storeu_si512(out, _mm512_sub_epi8(nibbles(p), _mm512_set1_epi8(8)));
  }

  /// A run of 64 q4 weights as bytes 0..15: the even group's in the lower half, the odd group's in the upper
  /// one.
  static __m512i nibbles(const std::uint8_t* p) noexcept {
    const __m512i twice = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    const __m512i count = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
    return _mm512_and_si512(_mm512_srlv_epi16(twice, count), _mm512_set1_epi8(15));
  }
  /// The scales of such a run: the first in lanes 0..7, the second in lanes 8..15.
  static void q4_scales(const std::uint16_t* p, F* out) noexcept {
    std::int32_t two;
    std::memcpy(&two, p, sizeof two);
    // Bytes of the first and of the second one to the upper half of a lane, zeros (index 128) below.
    const __m512i take = _mm512_inserti64x4(_mm512_set1_epi32(0x01008080), _mm256_set1_epi32(0x03028080), 1);
    out[0] = _mm512_castsi512_ps(_mm512_shuffle_epi8(_mm512_set1_epi32(two), take));
  }

  /// Bytes of a step that has only n < 64 columns, zeros behind them.
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
