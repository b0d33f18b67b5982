// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/kernels/dense_impl.h"
#include "engine/kernels/lanes_avx512.h"

// What the two AVX-512 tables share: everything but the products of bytes.

namespace terrace {
namespace {

struct Avx512Common : Avx512Lanes {
  // 4 x 4 outputs of one register each leave half of the 32 registers to activations and weights.
  static constexpr std::size_t kRows = 4;
  static constexpr std::size_t kTokens = 4;
  static constexpr std::size_t kStreams = 4;
  // Emerald Rapids gains up to 60 % by software prefetch 2-8 KB ahead: its hardware prefetcher stops at page
  // borders.
  static constexpr std::size_t kPrefetch = 2048;

  static F keep(F v) noexcept {
    asm("" : "+v"(v.data));
    return v;
  }

  template <class T>
  static F load_tight(const T* p) noexcept {
    return load(p);
  }

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
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(bytes), _mm256_srli_epi16(bytes, 4), 1);
    return _mm512_and_si512(both, _mm512_set1_epi8(15));
  }
  /// The scales of such a run: the first in lanes 0..7, the second in lanes 8..15.
  static void q4_scales(const std::uint16_t* p, F* out) noexcept {
    std::int32_t two;
    std::memcpy(&two, p, sizeof two);
    // Shifting the second one by 0 leaves the first below it in place: the mask clears it.
    const __m512i count = _mm512_inserti64x4(_mm512_set1_epi32(16), _mm256_setzero_si256(), 1);
    const __m512i shifted = _mm512_sllv_epi32(_mm512_set1_epi32(two), count);
    out[0] = _mm512_castsi512_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
  }

  static std::int32_t sum_of_lanes(__m512i v) noexcept {
    const __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
  }

  // Four streams, as the dot kernels have.
  static std::uint64_t read(const void* data, std::size_t n) noexcept {
    constexpr std::size_t kLine = 64;
    const char* const p = static_cast<const char*>(data);
    const std::size_t part = n / kLine / 4 * kLine;
    __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                      _mm512_setzero_si512()};
    for (std::size_t i = 0; i < part; i += kLine) {
      TERRACE_UNROLL
      for (std::size_t k = 0; k < 4; ++k) {
        __builtin_prefetch(p + k * part + i + kPrefetch);
        sum[k] = _mm512_xor_si512(sum[k], load_bytes(p + k * part + i));
      }
    }
    for (std::size_t i = 4 * part; i < n; i += kLine) sum[0] = _mm512_xor_si512(sum[0], load_bytes(p + i));
    const __m512i all = _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]), _mm512_xor_si512(sum[2], sum[3]));
    const __m256i four = _mm256_xor_si256(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    const __m128i two = _mm_xor_si128(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
    return static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_xor_si128(two, _mm_unpackhi_epi64(two, two))));
  }
};

}  // namespace
}  // namespace terrace
