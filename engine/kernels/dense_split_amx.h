// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "engine/kernels/dense_kernels.h"
#include "engine/kernels/dense_packed_avx512.h"
#include "engine/kernels/tiles_amx.h"

// Tiles of bf16 weights times activation rows split in two (DenseKernels::dot_split_bf16). A tile of
// activations has a row for each pair of columns; a pair of the high parts of an activation row and the pair
// of its low parts lie side by side, so that a tile of sums has both for eight activation rows. One row alone
// has narrow tiles, of two sums.

namespace terrace {
namespace {

constexpr std::size_t kPairBytes = 2 * sizeof(std::uint16_t);
constexpr std::size_t kNarrowBytes = 2 * kPairBytes;  // a pair of high and a pair of low parts
static_assert(kTileRowBytes == kSplitColumns * sizeof(std::uint16_t));
static_assert(kTileRowBytes == kSplitRows * kNarrowBytes);

/// 32 columns of a row, split.
struct SplitColumns {
  __m512i high, low;

  SplitColumns() noexcept : high(_mm512_setzero_si512()), low(_mm512_setzero_si512()) {}
  SplitColumns(const float* x, std::size_t n) noexcept {
    const __m512 first = _mm512_maskz_loadu_ps(first_lanes<__mmask16>(n), x);
    const __m512 second = _mm512_maskz_loadu_ps(first_lanes<__mmask16>(n > 16 ? n - 16 : 0), x + 16);
    high = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
    low = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(rest(second, _mm512_extracti64x4_epi64(high, 1)),
                                                        rest(first, _mm512_castsi512_si256(high))));
  }

 private:
  /// x - high; 0 where that is NaN, as for an infinite x (a NaN of x is in the high part already).
  static __m512 rest(__m512 x, __m256i high) noexcept {
    const __m512 widened = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
    const __m512 difference = _mm512_sub_ps(x, widened);
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(difference, difference, _CMP_ORD_Q), difference);
  }
};

inline void pack_one_split(const float* x, std::size_t d, std::byte* pack) noexcept {
  const __m512i first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
  for (std::size_t c = 0; c < d; c += kSplitColumns, pack += kTileRows * kNarrowBytes) {
    const SplitColumns columns(x + c, d - c);
    _mm512_storeu_si512(pack, _mm512_permutex2var_epi32(columns.high, first, columns.low));
    _mm512_storeu_si512(pack + 64, _mm512_permutex2var_epi32(columns.high, second, columns.low));
  }
}

inline void pack_split(const float* const* x, std::size_t n, std::size_t d, bool alone,
                       std::byte* pack) noexcept {
  if (alone) return pack_one_split(x[0], d, pack);
  for (std::size_t c = 0; c < d; c += kSplitColumns, pack += kTileRows * kTileRowBytes) {
    Avx512Lanes::F rows[2 * kSplitRows];
    TERRACE_UNROLL
    for (std::size_t r = 0; r < kSplitRows; ++r) {
      const SplitColumns columns = r < n ? SplitColumns(x[r] + c, d - c) : SplitColumns();
      rows[2 * r] = _mm512_castsi512_ps(columns.high);
      rows[2 * r + 1] = _mm512_castsi512_ps(columns.low);
    }
    Avx512Lanes::transpose(rows);
    TERRACE_UNROLL
    for (std::size_t k = 0; k < kTileRows; ++k) _mm512_store_ps(pack + k * kTileRowBytes, rows[k]);
  }
}

/// Where a tile is loaded from.
struct TileSource {
  const void* data;
  std::size_t stride;
};

/// Weights of a call, cut into tiles.
struct SplitWeights {
  const std::uint16_t* w;
  std::size_t row_stride, n_rows, d;

  const std::uint16_t* at(std::size_t row, std::size_t c) const noexcept { return w + row * row_stride + c; }
  /// The tile at (row, c), in `partial` if a part of it is not there.
  TileSource tile(std::size_t row, std::size_t c, PartialTile& partial) const noexcept {
    const std::size_t stride = row_stride * sizeof *w;
    if (row + kTileRows <= n_rows && c + kSplitColumns <= d) return {at(row, c), stride};
    partial.fill(at(row, c), stride, std::min(kTileRows, n_rows - row),
                 std::min(kSplitColumns, d - c) * sizeof *w);
    return {partial.bytes, kTileRowBytes};
  }
};

/// Sums of a tile: [weight row][activation row][high, low].
struct alignas(64) SplitSums {
  float sum[kTileRows][2 * kSplitRows];

  /// y[t] = sums of n_rows weight rows, high + low, for n activation rows.
  void store(std::size_t n_rows, std::size_t n, float* y, std::size_t y_stride) const noexcept {
    Avx512Lanes::F rows[kTileRows];
    TERRACE_UNROLL
    for (std::size_t r = 0; r < kTileRows; ++r) rows[r] = _mm512_load_ps(sum[r]);
    Avx512Lanes::transpose(rows);
    const __mmask16 there = first_lanes<__mmask16>(n_rows);
    TERRACE_UNROLL
    for (std::size_t t = 0; t < kSplitRows; ++t) {
      if (t < n) _mm512_mask_storeu_ps(y + t * y_stride, there, _mm512_add_ps(rows[2 * t], rows[2 * t + 1]));
    }
  }
};

/// Sums of 32 weight rows (`two_rows`) or 16 with two packs (`two_packs`) or one. `ahead`: the following rows
/// are prefetched, as many bytes per step as a step reads.
template <bool two_rows, bool two_packs>
inline void multiply_split(const SplitWeights& w, std::size_t row, const std::byte* pack, bool ahead,
                           SplitSums (&sums)[2][2]) noexcept {
  using Block = TileBlock<two_rows, two_packs>;
  Block::clear();
  PartialTile partial;
  const std::size_t pack_size = split_bytes(w.d, false);
  constexpr std::size_t kRows = two_rows ? 2 * kTileRows : kTileRows;
  for (std::size_t c = 0; c < w.d; c += kSplitColumns, pack += kTileRows * kTileRowBytes) {
    if (ahead) {
      for (std::size_t r = 0; r < kRows; ++r) __builtin_prefetch(w.at(row + kRows + r, c), 0, 2);
    }
    const TileSource first = w.tile(row, c, partial);
    _tile_loadd(4, first.data, first.stride);
    _tile_loadd(6, pack, kTileRowBytes);
    if constexpr (two_rows) {
      const TileSource second = w.tile(row + kTileRows, c, partial);
      _tile_loadd(5, second.data, second.stride);
    }
    if constexpr (two_packs) _tile_loadd(7, pack + pack_size, kTileRowBytes);
    Block::add_products_bf16();
  }
  Block::store(sums);
}

/// How far a step of one activation row prefetches ahead of what it reads, in bytes. A burst of requests
/// before the products would not overlap with them (lm1b-24L bf16, one thread: a token is 10 % faster this
/// way).
constexpr std::size_t kAhead = 8192;

/// One activation row: four tiles of weights at a time, each with the same narrow tile of activations.
inline void dot_one_split(const SplitWeights& w, const std::byte* pack, float* y) noexcept {
  constexpr unsigned kNarrowTiles = 0b1001111;  // sums in 0 to 3, activations in 6
  constexpr std::size_t kTiles = 4;
  const TileRegisters registers(kNarrowTiles, kNarrowBytes);
  const __m512i evens = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
  alignas(64) float sums[kTiles][2 * kTileRows];
  PartialTile partial;
  for (std::size_t row = 0; row < w.n_rows; row += kTiles * kTileRows) {
    const std::size_t n_tiles = std::min(kTiles, (w.n_rows - row + kTileRows - 1) / kTileRows);
    const auto tile = [&](std::size_t i, std::size_t c) {
      for (std::size_t r = 0; r < kTileRows; ++r) {
        __builtin_prefetch(w.at(row + i * kTileRows + r, c) + kAhead / sizeof *w.w);
      }
      return w.tile(row + i * kTileRows, c, partial);
    };
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const std::byte* at = pack;
    for (std::size_t c = 0; c < w.d; c += kSplitColumns, at += kTileRows * kNarrowBytes) {
      TileSource source = tile(0, c);
      _tile_loadd(4, source.data, source.stride);
      _tile_loadd(6, at, kNarrowBytes);
      _tile_dpbf16ps(0, 4, 6);
      if (n_tiles < 2) continue;
      source = tile(1, c);
      _tile_loadd(5, source.data, source.stride);
      _tile_dpbf16ps(1, 5, 6);
      if (n_tiles < 3) continue;
      source = tile(2, c);
      _tile_loadd(4, source.data, source.stride);
      _tile_dpbf16ps(2, 4, 6);
      if (n_tiles < 4) continue;
      source = tile(3, c);
      _tile_loadd(5, source.data, source.stride);
      _tile_dpbf16ps(3, 5, 6);
    }
    _tile_stored(0, sums[0], kNarrowBytes);
    _tile_stored(1, sums[1], kNarrowBytes);
    _tile_stored(2, sums[2], kNarrowBytes);
    _tile_stored(3, sums[3], kNarrowBytes);
    for (std::size_t i = 0; i < n_tiles; ++i) {
      const std::size_t first = row + i * kTileRows;
      const __m512 a = _mm512_load_ps(sums[i]), b = _mm512_load_ps(sums[i] + kTileRows);
      const __m512 sum =
          _mm512_add_ps(_mm512_permutex2var_ps(a, evens, b), _mm512_permutex2var_ps(a, odds, b));
      _mm512_mask_storeu_ps(y + first, first_lanes<__mmask16>(w.n_rows - first), sum);
    }
  }
}

inline void dot_split_bf16(const std::uint16_t* w, std::size_t row_stride, std::size_t n_rows,
                           const std::byte* packs, std::size_t n_tokens, std::size_t d, float* y,
                           std::size_t y_stride) noexcept {
  const SplitWeights weights{w, row_stride, n_rows, d};
  if (n_tokens == 1) return dot_one_split(weights, packs, y);
  const TileRegisters registers;
  for_tile_blocks<SplitSums, kSplitRows>(
      n_rows, n_tokens,
      [&](auto two_rows, auto two_packs, std::size_t row, std::size_t token, bool ahead,
          SplitSums(&sums)[2][2]) {
        const std::byte* const pack = packs + token / kSplitRows * split_bytes(d, false);
        multiply_split<two_rows, two_packs>(weights, row, pack, ahead, sums);
      },
      [&](const SplitSums& sums, std::size_t row, std::size_t token) {
        sums.store(n_rows - row, std::min(kSplitRows, n_tokens - token), y + token * y_stride + row,
                   y_stride);
      });
}

}  // namespace
}  // namespace terrace
