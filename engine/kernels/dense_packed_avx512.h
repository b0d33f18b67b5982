// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/kernels/dense_kernels.h"
#include "engine/kernels/lanes_avx512.h"  // silences a warning of immintrin.h, so it comes first

#include "engine/kernels/dense_packed_q4.h"

// Many int8 activation rows times a weight matrix: sixteen rows lie side by side (a pack), so that the lanes
// of a register are activation rows and no sum has to be folded across lanes. Floats gain nothing this way:
// their sums have sixteen parts (dense_scalar.cpp), and f32 weights are broadcast from four times as many
// lines.

namespace terrace {
namespace {

/// A mask of the first n lanes, or of all lanes if there are fewer.
template <class Mask>
constexpr Mask first_lanes(std::size_t n) noexcept {
  constexpr std::size_t kBits = sizeof(Mask) * 8;
  return n >= kBits ? static_cast<Mask>(~Mask{0}) : static_cast<Mask>((std::uint64_t{1} << n) - 1);
}

/// The scales of n activation rows, one in each lane.
inline __m512 scales_of(const QuantizedRow* x, std::size_t n) noexcept {
  // If sixteen floats were written one by one and read as one register, the load would wait for all earlier
  // stores, even of outputs, which may miss the caches: a third of the time.
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i offset_of = _mm512_mullo_epi32(lane, _mm512_set1_epi32(sizeof *x));
  return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), first_lanes<__mmask16>(n), offset_of, &x->scale, 1);
}

/// Outputs [weight row][activation row] to y [activation row][weight row].
inline void store_transposed(Avx512Lanes::F (&rows)[kPackRows], std::size_t n_tokens, float* y,
                             std::size_t y_stride) noexcept {
  Avx512Lanes::transpose(rows);
  if (n_tokens == kPackRows) {
    TERRACE_UNROLL
    for (std::size_t t = 0; t < kPackRows; ++t) Avx512Lanes::store(y + t * y_stride, rows[t]);
    return;
  }
  for (std::size_t t = 0; t < n_tokens; ++t) Avx512Lanes::store(y + t * y_stride, rows[t]);
}

/// The outputs of sixteen weight rows for one pack, from exact integer sums [row][activation row]:
///   y = float(sum - offset[row]) * (w_scale[row] * x.scale)
inline void store_scaled(const __m512i* sums, const std::int32_t* offset, const float* w_scale,
                         const QuantizedRow* x, std::size_t n_tokens, float* y,
                         std::size_t y_stride) noexcept {
  const __m512 scale = scales_of(x, n_tokens);
  Avx512Lanes::F rows[kPackRows];
  TERRACE_UNROLL
  for (std::size_t r = 0; r < kPackRows; ++r) {
    const __m512i sum = _mm512_sub_epi32(sums[r], _mm512_set1_epi32(offset[r]));
    const __m512 scales = _mm512_mul_ps(_mm512_set1_ps(w_scale[r]), scale);
    rows[r] = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scales);
  }
  store_transposed(rows, n_tokens, y, y_stride);
}

/// A pack of n int8 rows: four neighbouring columns of the sixteen rows are 64 bytes. `flip` is 0x80 where
/// the kernel wants them unsigned, x + 128, else 0.
template <int flip>
void pack_rows(const QuantizedRow* x, std::size_t n, std::size_t d, std::byte* pack) noexcept {
  const __m512i flips = _mm512_set1_epi8(static_cast<char>(flip));
  const std::int8_t* q[kPackRows];
  for (std::size_t r = 0; r < kPackRows; ++r) q[r] = x[r < n ? r : 0].q;
  for (std::size_t c = 0; c < d; c += kPackColumns, pack += kPackColumns * kPackRows) {
    Avx512Lanes::F rows[kPackRows];
    const __mmask64 there = first_lanes<__mmask64>(d - c);  // behind d there may be more of a longer row
    TERRACE_UNROLL
    for (std::size_t r = 0; r < kPackRows; ++r) {
      rows[r] = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_maskz_loadu_epi8(there, q[r] + c), flips));
    }
    TERRACE_UNROLL
    for (std::size_t r = 0; r < kPackRows; ++r) {
      if (r >= n) rows[r] = Avx512Lanes::set(0.0F);
    }
    Avx512Lanes::transpose(rows);
    TERRACE_UNROLL
    for (std::size_t k = 0; k < kPackRows; ++k) {
      _mm512_store_ps(pack + k * kPackRows * sizeof(std::int32_t), rows[k]);
    }
  }
}

/// A pack for q4 weights.
inline void pack_q4(const QuantizedRow* x, std::size_t n, std::size_t d, std::byte* pack) noexcept {
  pack_rows<0>(x, n, d, pack);
  const __m512i ones = _mm512_set1_epi16(1);
  const __m512i minus_eight = _mm512_set1_epi32(-8);
  std::byte* sums = pack + pack_bytes(d);
  for (std::size_t c = 0; c < d; c += kQ4Group, sums += kPackRows * sizeof(std::int32_t)) {
    __m512i sum = _mm512_setzero_si512();
    for (std::size_t i = c; i < c + kQ4Group; i += 4) {
      const __m512i pairs = _mm512_maddubs_epi16(_mm512_set1_epi8(1), load_bytes(pack + i * kPackRows));
      sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, ones));
    }
    _mm512_store_si512(sums, _mm512_mullo_epi32(sum, minus_eight));
  }
}

/// What dot_packed_q4() needs, whatever multiplies; see there.
struct PackedQ4Avx512 {
  /// Nibbles as they are, 0..15.
  static void unpack(const std::uint8_t* p, std::int8_t* out) noexcept {
    const __m256i run = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const __m256i mask = _mm256_set1_epi8(15);
    _mm256_store_si256(reinterpret_cast<__m256i*>(out), _mm256_and_si256(run, mask));
    _mm256_store_si256(reinterpret_cast<__m256i*>(out + kQ4Group),
                       _mm256_and_si256(_mm256_srli_epi16(run, 4), mask));
  }
  static void store(const PackTotals& totals, const QuantizedRow* x, std::size_t n_tokens, float* y,
                    std::size_t y_stride) noexcept {
    const Avx512Lanes::F scale = scales_of(x, n_tokens);
    Avx512Lanes::F rows[kPackRows];
    TERRACE_UNROLL
    for (std::size_t r = 0; r < kPackRows; ++r) {
      rows[r] = Avx512Lanes::mul(Avx512Lanes::load(totals.of[r]), scale);
    }
    store_transposed(rows, n_tokens, y, y_stride);
  }
};

}  // namespace
}  // namespace terrace
