// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

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

/// columns[c] = 32 bits number c of sixteen rows of 64 bytes, lane r from row r, which begins at row(r).
/// Quarters of registers are put together on the way from memory, so that half of the shuffles of a
/// transposition in registers remain, which all go through one port.
template <class Row>
inline void load_columns(Row row, __m512i (&columns)[kPackRows]) noexcept {
  constexpr std::size_t kQuarters = 4;
  __m512i parts[kQuarters][kQuarters];  // [j][i]: quarter j of rows i, i + 4, i + 8, i + 12
  const auto load = [](const void* p, std::size_t j) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p) + j);
  };
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kQuarters; ++i) {
    const void* const of_row[] = {row(i), row(i + 4), row(i + 8), row(i + 12)};
    TERRACE_UNROLL
    for (std::size_t j = 0; j < kQuarters; ++j) {
      __m512i v = _mm512_castsi128_si512(load(of_row[0], j));
      v = _mm512_inserti32x4(v, load(of_row[1], j), 1);
      v = _mm512_inserti32x4(v, load(of_row[2], j), 2);
      parts[j][i] = _mm512_inserti32x4(v, load(of_row[3], j), 3);
    }
  }
  TERRACE_UNROLL
  for (std::size_t j = 0; j < kQuarters; ++j) {
    const __m512i a = _mm512_unpacklo_epi32(parts[j][0], parts[j][1]);
    const __m512i b = _mm512_unpackhi_epi32(parts[j][0], parts[j][1]);
    const __m512i c = _mm512_unpacklo_epi32(parts[j][2], parts[j][3]);
    const __m512i d = _mm512_unpackhi_epi32(parts[j][2], parts[j][3]);
    columns[4 * j] = _mm512_unpacklo_epi64(a, c);
    columns[4 * j + 1] = _mm512_unpackhi_epi64(a, c);
    columns[4 * j + 2] = _mm512_unpacklo_epi64(b, d);
    columns[4 * j + 3] = _mm512_unpackhi_epi64(b, d);
  }
}

/// The outputs of sixteen weight rows for one pack, from exact integer sums [row][activation row], to
/// y [activation row][row]:
///   y = float(sum - offset[row]) * (w_scale[row] * x.scale)
inline void store_scaled(const __m512i* sums, const std::int32_t* offset, const float* w_scale,
                         const QuantizedRow* x, std::size_t n_tokens, float* y,
                         std::size_t y_stride) noexcept {
  __m512i of_token[kPackRows];
  load_columns([sums](std::size_t r) { return sums + r; }, of_token);
  const __m512i offsets = _mm512_loadu_si512(offset);
  const __m512 scales = _mm512_loadu_ps(w_scale);
  const auto store = [&](std::size_t t) {
    const __m512 sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(of_token[t], offsets));
    const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(x[t].scale));
    _mm512_storeu_ps(y + t * y_stride, _mm512_mul_ps(sum, scale));
  };
  if (n_tokens == kPackRows) {
    TERRACE_UNROLL
    for (std::size_t t = 0; t < kPackRows; ++t) store(t);
    return;
  }
  for (std::size_t t = 0; t < n_tokens; ++t) store(t);
}

/// A pack of n int8 rows: four neighbouring columns of the sixteen rows are 64 bytes. `flip` is 0x80 where
/// the kernel wants them unsigned, x + 128, else 0. Lanes from n on hold copies of row 0, which nobody reads.
template <int flip>
void pack_rows(const QuantizedRow* x, std::size_t n, std::size_t d, std::byte* pack) noexcept {
  const __m512i flips = _mm512_set1_epi8(static_cast<char>(flip));
  const auto store = [&](__m512i(&columns)[kPackRows]) {
    TERRACE_UNROLL
    for (std::size_t k = 0; k < kPackRows; ++k) {
      _mm512_store_si512(pack + k * kPackRows * sizeof(std::int32_t), _mm512_xor_si512(columns[k], flips));
    }
    pack += kPackColumns * kPackRows;
  };
  const std::int8_t* rows[kPackRows];
  for (std::size_t r = 0; r < kPackRows; ++r) rows[r] = x[r < n ? r : 0].q;
  const auto pack_step = [&](std::size_t column) {
    __m512i columns[kPackRows];
    load_columns([&](std::size_t r) { return rows[r] + column; }, columns);
    store(columns);
  };
  std::size_t c = 0;
  for (; c + kPackColumns <= d; c += kPackColumns) pack_step(c);
  if (c == d) return;
  alignas(64) std::int8_t rest[kPackRows][kPackColumns] = {};  // behind d there may be more of a longer row
  for (std::size_t r = 0; r < kPackRows; ++r) {
    std::memcpy(rest[r], rows[r] + c, d - c);
    rows[r] = rest[r];
  }
  pack_step(0);
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
    __m512i of_token[kPackRows];
    load_columns([&totals](std::size_t r) { return totals.of[r]; }, of_token);
    for (std::size_t t = 0; t < n_tokens; ++t) {
      _mm512_storeu_ps(y + t * y_stride,
                       _mm512_mul_ps(_mm512_castsi512_ps(of_token[t]), _mm512_set1_ps(x[t].scale)));
    }
  }
};

}  // namespace
}  // namespace terrace
