// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "engine/dtype.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/kernels/lanes.h"
#include "engine/tensor.h"

// Many int8 activation rows times 4-bit weight rows, with the bits of dot_q4: sixteen activation rows lie
// side by side, as in a pack for q8, and are the lanes. Sixteen weight rows are unpacked to bytes, a span at
// a time, for all packs. The sums of a group are exact integers, so any order of adding will do.
//
// A pack: columns four by four, [column / 4][activation row][column % 4], then for each group -8 times the
// sum of each activation row, int32 [group][activation row]: (n - 8) x = n x - 8 x for nibbles n that stay
// unsigned.

namespace terrace {
namespace {

/// Sixteen weight rows over a span. Scales as floats.
struct alignas(64) UnpackedQ4 {
  std::int8_t w[kQ4Span / kQ4Columns][kPackRows][kQ4Columns];
  float scale[kQ4Span / kQ4Group][kPackRows];
};

/// Outputs without the scale of the activation row.
struct alignas(64) PackTotals {
  float of[kPackRows][kPackRows];  ///< [weight row][activation row]
};

/// `n` columns of sixteen rows at w and w_scale. `Unpack(p, out)` writes a run of 64 columns as bytes.
template <class Unpack>
inline void unpack_rows(const std::uint8_t* w, const std::uint16_t* w_scale, std::size_t row_stride,
                        std::size_t n, Unpack unpack, UnpackedQ4& out) noexcept {
  const std::uint8_t* const next = w + kPackRows * row_stride / 2;
  for (std::size_t r = 0; r < kPackRows; ++r) {
    const std::uint8_t* const row = w + r * row_stride / 2;
    for (std::size_t run = 0; run < n / kQ4Columns; ++run) {
      // The same part of the next rows: their lines arrive while these are multiplied.
      __builtin_prefetch(next + r * row_stride / 2 + run * kQ4Columns / 2);
      unpack(row + run * kQ4Columns / 2, out.w[run][r]);
    }
    const std::uint16_t* const scale = w_scale + r * row_stride / kQ4Group;
    for (std::size_t g = 0; g < n / kQ4Group; ++g) out.scale[g][r] = bf16_to_f32(scale[g]);
  }
}

/// Where the sums of a pack of rows of d columns begin.
inline const std::int32_t* pack_sums(const std::byte* pack, std::size_t d) noexcept {
  return reinterpret_cast<const std::int32_t*>(pack + pack_bytes(d));
}

/// n_rows is a multiple of kPackRows. An instruction set says
///   P::unpack(p, out)                          a run of 64 columns as bytes
///   P::multiply(rows, n_groups, pack, sums, totals)   adds the products of a span to the totals; `pack` and
///                                              `sums` begin where the span does
///   P::store(totals, x, n_tokens, y, y_stride) outputs
template <class P>
void dot_packed_q4(const std::uint8_t* w, std::size_t row_stride, const std::uint16_t* w_scale,
                   std::size_t n_rows, const std::byte* packs, const QuantizedRow* x, std::size_t n_tokens,
                   std::size_t d, float* y, std::size_t y_stride) noexcept {
  constexpr std::size_t kPacksAtOnce = 16;  // 16 KB of totals, which share L1 with the rows and a pack
  constexpr std::size_t kTokensAtOnce = kPacksAtOnce * kPackRows;
  const P instructions;
  UnpackedQ4 rows;
  PackTotals totals[kPacksAtOnce];
  for (std::size_t t0 = 0; t0 < n_tokens; t0 += kTokensAtOnce) {
    const std::size_t tokens = std::min(kTokensAtOnce, n_tokens - t0);
    const std::size_t n_packs = (tokens + kPackRows - 1) / kPackRows;
    for (std::size_t row = 0; row < n_rows; row += kPackRows) {
      for (std::size_t p = 0; p < n_packs; ++p) totals[p] = {};
      for (std::size_t begin = 0; begin < d; begin += kQ4Span) {
        const std::size_t n = std::min(kQ4Span, d - begin);
        const std::size_t first = row * row_stride + begin;
        unpack_rows(w + first / 2, w_scale + first / kQ4Group, row_stride, n, P::unpack, rows);
        for (std::size_t p = 0; p < n_packs; ++p) {
          const std::byte* const pack = packs + (t0 / kPackRows + p) * q4_pack_bytes(d);
          instructions.multiply(rows, n / kQ4Group, pack + begin * kPackRows,
                                pack_sums(pack, d) + begin / kQ4Group * kPackRows, totals[p]);
        }
      }
      for (std::size_t p = 0; p < n_packs; ++p) {
        const std::size_t t = t0 + p * kPackRows;
        P::store(totals[p], x + t, std::min(kPackRows, n_tokens - t), y + t * y_stride + row, y_stride);
      }
    }
  }
}

/// What dot_packed_q4() needs, for instruction sets that multiply bytes in vectors; `Common` unpacks and
/// stores. `V` says
///   V::kRows                       weight rows at once
///   V::Sums, V::start(sums, p)     sums of a group for kPackRows activation rows; p: -8 times those of x
///   V::add(sums, w, x)             + products of the four weights at w with four columns of the pack at x
///   V::finish(sums, p, F (&)[kParts])   the sums as floats
template <class S, class Common, class V>
struct PackedQ4ByVectors : Common {
  static void multiply(const UnpackedQ4& rows, std::size_t n_groups, const std::byte* pack,
                       const std::int32_t* sums, PackTotals& totals) noexcept {
    using F = typename S::F;
    constexpr std::size_t kRows = V::kRows;
    constexpr std::size_t kQuad = 4;
    for (std::size_t row = 0; row < kPackRows; row += kRows) {
      // In memory: in registers they would push the integer sums out, which every step needs.
      alignas(64) float sum[kQ4Sums][kRows][kPackRows] = {};
      for (std::size_t g = 0; g < n_groups; ++g) {
        const std::int8_t* const w = &rows.w[g / 2][row][g % 2 * kQ4Group];
        const std::byte* const x = pack + g * kQ4Group * kPackRows;
        const std::int32_t* const group_sums = sums + g * kPackRows;
        typename V::Sums products[kRows];
        TERRACE_UNROLL
        for (std::size_t r = 0; r < kRows; ++r) products[r] = V::start(group_sums);
        for (std::size_t c = 0; c < kQ4Group; c += kQuad) {
          const typename V::X quad = V::load_x(x + c * kPackRows);
          TERRACE_UNROLL
          for (std::size_t r = 0; r < kRows; ++r) V::add(products[r], w + r * kQ4Columns + c, quad);
        }
        TERRACE_UNROLL
        for (std::size_t r = 0; r < kRows; ++r) {
          F floats[kParts<S>];
          V::finish(products[r], group_sums, floats);
          const F scale = S::set(rows.scale[g][row + r]);
          TERRACE_UNROLL
          for (std::size_t p = 0; p < kParts<S>; ++p) {
            float* const to = sum[g % kQ4Sums][r] + p * S::kWidth;
            S::store(to, S::fma(floats[p], scale, S::load(to)));
          }
        }
      }
      TERRACE_UNROLL
      for (std::size_t r = 0; r < kRows; ++r) {
        TERRACE_UNROLL
        for (std::size_t p = 0; p < kParts<S>; ++p) {
          const auto part = [&](std::size_t k) { return S::load(sum[k][r] + p * S::kWidth); };
          const F folded = S::add(S::add(part(0), part(2)), S::add(part(1), part(3)));
          float* const to = totals.of[row + r] + p * S::kWidth;
          S::store(to, S::add(S::load(to), folded));
        }
      }
    }
  }
};

}  // namespace
}  // namespace terrace
