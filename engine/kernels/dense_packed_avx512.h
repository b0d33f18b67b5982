// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "engine/kernels/dense_kernels.h"
#include "engine/kernels/lanes_avx512.h"

// Many int8 activation rows against a weight: sixteen of them lie side by side (a pack), so that the lanes of
// a register are activation rows and no sum has to be folded across lanes. Floats gain nothing this way:
// their sums have sixteen parts (dense_scalar.cpp), and f32 weights are broadcast from four times as many
// lines.

namespace terrace {
namespace {

/// A 4 x 16 block of dwords becomes 16 runs of four: run j holds dword j of all four rows, and goes to
/// out + j * step bytes.
inline void scatter_columns(const __m512i (&rows)[4], std::byte* out, std::size_t step) noexcept {
  const __m512i ab_low = _mm512_unpacklo_epi32(rows[0], rows[1]);
  const __m512i ab_high = _mm512_unpackhi_epi32(rows[0], rows[1]);
  const __m512i cd_low = _mm512_unpacklo_epi32(rows[2], rows[3]);
  const __m512i cd_high = _mm512_unpackhi_epi32(rows[2], rows[3]);
  const __m512i columns[4] = {// of column 4 i + k in the i-th 128 bits of the k-th
                              _mm512_unpacklo_epi64(ab_low, cd_low), _mm512_unpackhi_epi64(ab_low, cd_low),
                              _mm512_unpacklo_epi64(ab_high, cd_high),
                              _mm512_unpackhi_epi64(ab_high, cd_high)};
  TERRACE_UNROLL
  for (std::size_t k = 0; k < 4; ++k) {
    const auto to = [&](std::size_t i) { return reinterpret_cast<__m128i*>(out + (4 * i + k) * step); };
    _mm_store_si128(to(0), _mm512_castsi512_si128(columns[k]));
    _mm_store_si128(to(1), _mm512_extracti32x4_epi32(columns[k], 1));
    _mm_store_si128(to(2), _mm512_extracti32x4_epi32(columns[k], 2));
    _mm_store_si128(to(3), _mm512_extracti32x4_epi32(columns[k], 3));
  }
}

/// The outputs of sixteen weight rows for one pack, from exact integer sums [row][activation row]:
///   y = float(sum - offset[row]) * (w_scale[row] * x.scale)
inline void store_scaled(const __m512i* sums, const std::int32_t* offset, const float* w_scale,
                         const QuantizedRow* x, std::size_t n_tokens, float* y,
                         std::size_t y_stride) noexcept {
  alignas(64) float x_scale[kPackRows] = {};
  for (std::size_t t = 0; t < n_tokens; ++t) x_scale[t] = x[t].scale;
  const __m512 scale = _mm512_load_ps(x_scale);
  Avx512Lanes::F rows[kPackRows];
  TERRACE_UNROLL
  for (std::size_t r = 0; r < kPackRows; ++r) {
    const __m512i sum = _mm512_sub_epi32(sums[r], _mm512_set1_epi32(offset[r]));
    const __m512 scales = _mm512_mul_ps(_mm512_set1_ps(w_scale[r]), scale);
    rows[r] = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scales);
  }
  Avx512Lanes::transpose(rows);
  if (n_tokens == kPackRows) {
    TERRACE_UNROLL
    for (std::size_t t = 0; t < kPackRows; ++t) Avx512Lanes::store(y + t * y_stride, rows[t]);
    return;
  }
  for (std::size_t t = 0; t < n_tokens; ++t) Avx512Lanes::store(y + t * y_stride, rows[t]);
}

/// A pack of n int8 rows: four neighbouring columns of the sixteen rows are 64 bytes. `flip` is 0x80 where
/// the kernel wants them unsigned, x + 128, else 0.
inline void pack_rows(const QuantizedRow* x, std::size_t n, std::size_t d, int flip,
                      std::byte* pack) noexcept {
  const __m512i flips = _mm512_set1_epi8(static_cast<char>(flip));
  for (std::size_t r = 0; r < n; r += 4) {
    for (std::size_t c = 0; c < d; c += kPackColumns) {
      __m512i rows[4];
      for (std::size_t k = 0; k < 4; ++k) {
        rows[k] = r + k < n ? _mm512_xor_si512(load_bytes(x[r + k].q + c), flips) : _mm512_setzero_si512();
      }
      scatter_columns(rows, pack + (c / 4 * kPackRows + r) * sizeof(std::int32_t),
                      kPackRows * sizeof(std::int32_t));
    }
  }
}

}  // namespace
}  // namespace terrace
