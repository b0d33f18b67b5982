// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace terrace {
namespace {

/// The largest of eight int16, none of them negative.
inline std::uint32_t largest_word(__m128i words) noexcept {
  const __m128i ones = _mm_set1_epi16(-1);
  const __m128i least = _mm_minpos_epu16(_mm_xor_si128(words, ones));  // of their complements
  return static_cast<std::uint32_t>(_mm_extract_epi16(_mm_xor_si128(least, ones), 0));
}

}  // namespace
}  // namespace terrace
