// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "engine/kernels/lanes.h"
#include "engine/kernels/xsimd_lanes.h"

namespace terrace {
namespace {

/// Byte order of a shuffle that moves each 16-bit word to the upper half of a 32-bit lane.
alignas(32) constexpr std::int8_t kWordsToUpperHalves[32] = {
    -1, -1, 0, 1, -1, -1, 2,  3,  -1, -1, 4,  5,  -1, -1, 6,  7,
    -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15,
};

inline __m256i load_bytes(const void* p) noexcept {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

/// The four bytes at p in every lane.
inline __m256i broadcast_four(const void* p) noexcept {
  std::int32_t four;
  std::memcpy(&four, p, sizeof four);
  return _mm256_set1_epi32(four);
}

struct Avx2Lanes : XsimdLanes<xsimd::fma3<xsimd::avx2>> {
  static F fma(F a, F b, F c) noexcept { return _mm256_fmadd_ps(a, b, c); }

  using XsimdLanes::load;
  // Both halves of the register get the same 16 bytes from the load itself; one shuffle puts every word in
  // its place. Widening and shifting would be two operations.
  static F load(const std::uint16_t* p) noexcept {
    return _mm256_castsi256_ps(_mm256_shuffle_epi8(twice(p), load_bytes(kWordsToUpperHalves)));
  }
  static F load(const std::int8_t* p) noexcept {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  static F times_power(F p, F n) noexcept {
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
  }
  using Ints = __m256i;
  static Ints to_ints(F x) noexcept { return _mm256_cvtps_epi32(x); }
  static void store_i8(std::int8_t* q, const Ints* parts) noexcept {
    const __m256i words = _mm256_packs_epi32(parts[0], parts[1]);
    const __m256i in_order = _mm256_permute4x64_epi64(words, 0xd8);  // packing works in each half by itself
    const __m128i low = _mm256_castsi256_si128(in_order);
    const __m128i high = _mm256_extracti128_si256(in_order, 1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm_packs_epi16(low, high));
  }
  static void store_i16(std::int16_t* s, const Ints* parts) noexcept {
    const __m256i words = _mm256_packs_epi32(parts[0], parts[1]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(s), _mm256_permute4x64_epi64(words, 0xd8));
  }
  static float fold(const F* parts) noexcept {
    const __m256 eight = _mm256_add_ps(parts[0], parts[1]);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }

  static float fold_max(const F* parts) noexcept {
    const __m256 eight = _mm256_max_ps(parts[0], parts[1]);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }

  /// 16 bytes in both halves of a register.
  static __m256i twice(const std::uint16_t* p) noexcept {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
};

}  // namespace
}  // namespace terrace
