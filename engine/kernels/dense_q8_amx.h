// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "engine/kernels/dense_packed_avx512.h"
#include "engine/kernels/tiles_amx.h"

// int8 weights times packs of int8 activation rows. AMX multiplies a tile of 16 weight rows x 64 columns by a
// tile of 64 columns x 16 activation rows in 16 cycles: a pack is such a tile as it is, and int32 sums are
// exact, so the bits stay the same.

namespace terrace {
namespace {

static_assert(kPackRows == kTileRows && kPackColumns == kTileRowBytes);

/// Sums of 32 weight rows (`two_rows`) or 16 with 32 activation rows (`two_packs`) or 16. `ahead`: the
/// following rows are prefetched, as many bytes per step as a step reads.
template <bool two_rows, bool two_packs>
void multiply(const std::int8_t* w, std::size_t row_stride, const std::byte* pack, std::size_t d, bool ahead,
              TileSums (&sums)[2][2]) noexcept {
  using Block = TileBlock<two_rows, two_packs>;
  constexpr std::size_t kRows = two_rows ? 2 * kTileRows : kTileRows;
  Block::clear();
  const auto step = [&](std::size_t c, const void* first, const void* second, std::size_t stride) {
    _tile_loadd(4, first, stride);
    _tile_loadd(6, pack + c * kPackRows, kTileRowBytes);
    if constexpr (two_rows) _tile_loadd(5, second, stride);
    if constexpr (two_packs) _tile_loadd(7, pack + pack_bytes(d) + c * kPackRows, kTileRowBytes);
    Block::add_products_q8();
  };
  std::size_t c = 0;
  for (; c + kTileRowBytes <= d; c += kTileRowBytes) {
    if (ahead) {
      for (std::size_t r = 0; r < kRows; ++r) __builtin_prefetch(w + (kRows + r) * row_stride + c, 0, 2);
    }
    step(c, w + c, w + kTileRows * row_stride + c, row_stride);
  }
  if (c < d) {
    PartialTile first, second;
    first.fill(w + c, row_stride, kTileRows, d - c);
    if constexpr (two_rows) second.fill(w + kTileRows * row_stride + c, row_stride, kTileRows, d - c);
    step(c, first.bytes, second.bytes, kTileRowBytes);
  }
  Block::store(sums);
}

/// Weights of 32 rows over a panel of columns, tile by tile. In the matrix, rows often lie a power of two
/// apart and evict each other from L1.
struct alignas(64) WeightPanel {
  static constexpr std::size_t kSteps = 8;  // 16 KB, a third of L1: as much of packs passes, and sums
  std::int8_t tile[kSteps][2][kTileRows][kTileRowBytes];

  /// `n` columns of n_rows rows, the last step filled up with zeros.
  void fill(const std::int8_t* w, std::size_t row_stride, std::size_t n_rows, std::size_t n) noexcept {
    settle(this);
    for (std::size_t r = 0; r < n_rows; ++r) {
      const std::int8_t* const row = w + r * row_stride;
      for (std::size_t c = 0; c < n; c += kTileRowBytes) {
        const __m512i part = _mm512_maskz_loadu_epi8(first_lanes<__mmask64>(n - c), row + c);
        _mm512_store_si512(tile[c / kTileRowBytes][r / kTileRows][r % kTileRows], part);
      }
    }
    settle(this);
  }
};

/// Adds the products of a panel with one or two packs to the sums of 32 rows, or 16.
template <bool two_rows, bool two_packs, class Prefetch>
void multiply_panel(const WeightPanel& panel, std::size_t n_steps, const std::byte* pack,
                    std::size_t next_pack, bool first, Prefetch prefetch, TileSums (&sums)[2][2]) noexcept {
  using Block = TileBlock<two_rows, two_packs>;
  first ? Block::clear() : Block::load(sums);
  for (std::size_t s = 0; s < n_steps; ++s, pack += kTileRowBytes * kPackRows) {
    prefetch(s);
    _tile_loadd(4, panel.tile[s][0], kTileRowBytes);
    _tile_loadd(6, pack, kTileRowBytes);
    if constexpr (two_rows) _tile_loadd(5, panel.tile[s][1], kTileRowBytes);
    if constexpr (two_packs) _tile_loadd(7, pack + next_pack, kTileRowBytes);
    Block::add_products_q8();
  }
  Block::store(sums);
}

constexpr std::int32_t kNoOffset[kTileRows] = {};

/// With more bytes of packs than this, which leave little of an L2 cache to the weights, copying the weights
/// saves more than it costs.
constexpr std::size_t kManyPackBytes = std::size_t{256} * 1024;

/// Many activation rows: 32 weight rows and a panel of columns stay in L1 while all packs pass. A block of
/// outputs is stored tile by tile between the steps of the next one, because storing takes as long as some of
/// those steps.
class PanelProduct {
 public:
  static constexpr std::size_t kPair = 2 * kTileRows;
  static constexpr std::size_t kPairsAtOnce = 8;

  PanelProduct(const std::int8_t* w, std::size_t row_stride, const float* w_scale, std::size_t n_rows,
               const std::byte* packs, const QuantizedRow* x, std::size_t n_tokens, std::size_t d, float* y,
               std::size_t y_stride) noexcept
      : w_(w),
        row_stride_(row_stride),
        w_scale_(w_scale),
        n_rows_(n_rows),
        packs_(packs),
        x_(x),
        n_tokens_(n_tokens),
        d_(d),
        y_(y),
        y_stride_(y_stride) {}

  void run() noexcept {
    for (std::size_t token = 0; token < n_tokens_; token += kPairsAtOnce * kPair) {
      for (std::size_t row = 0; row < n_rows_; row += kPair) multiply_rows(row, token);
    }
    for (std::size_t i = 0; i < 4; ++i) store(before_, i);
  }

 private:
  struct Block {
    const TileSums (*sums)[2] = nullptr;
    std::size_t row = 0, token = 0;
  };

  void multiply_rows(std::size_t row, std::size_t first_token) noexcept {
    constexpr std::size_t kColumns = WeightPanel::kSteps * kTileRowBytes;
    const std::size_t n_pairs = std::min(kPairsAtOnce, (n_tokens_ - first_token + kPair - 1) / kPair);
    const std::size_t n_panels = (d_ + kColumns - 1) / kColumns;
    const std::size_t all_steps = (d_ + kTileRowBytes - 1) / kTileRowBytes;
    const std::int8_t* const rows = w_ + row * row_stride_;
    for (std::size_t p = 0; p < n_panels; ++p) {
      const std::size_t column = all_steps * p / n_panels * kTileRowBytes;
      const std::size_t end = std::min(all_steps * (p + 1) / n_panels * kTileRowBytes, d_);
      const bool last = p + 1 == n_panels;
      panel_.fill(rows + column, row_stride_, std::min(kPair, n_rows_ - row), end - column);
      const std::int8_t* const next = last ? rows + kPair * row_stride_ : rows + end;
      for (std::size_t pair = 0; pair < n_pairs; ++pair) {
        const std::size_t token = first_token + pair * kPair;
        multiply_pair(row, token, column, end, next, kPair * pair / n_pairs, kPair * (pair + 1) / n_pairs,
                      sums_[pair]);
        if (last) before_ = {sums_[pair], row, token};
      }
    }
  }

  void multiply_pair(std::size_t row, std::size_t token, std::size_t column, std::size_t end,
                     const std::int8_t* next, std::size_t ahead_begin, std::size_t ahead_end,
                     TileSums (&sums)[2][2]) noexcept {
    const std::size_t n_steps = (end - column + kTileRowBytes - 1) / kTileRowBytes;
    const std::byte* const pack = packs_ + token / kPackRows * pack_bytes(d_) + column * kPackRows;
    const auto meanwhile = [&](std::size_t s) {
      for (std::size_t r = ahead_begin; r < ahead_end; ++r)
        __builtin_prefetch(next + r * row_stride_ + s * kTileRowBytes);
      for (std::size_t i = 4 * s / n_steps; i < 4 * (s + 1) / n_steps; ++i) store(before_, i);
      if (end < d_) return;
      for (std::size_t i = kPair * s / n_steps; i < kPair * (s + 1) / n_steps; ++i) {
        __builtin_prefetch(y_ + (token + i) * y_stride_ + row, 1);
        __builtin_prefetch(y_ + (token + i) * y_stride_ + row + kTileRows, 1);
      }
    };
    const auto multiply = [&](auto two_rows, auto two_packs) {
      multiply_panel<two_rows, two_packs>(panel_, n_steps, pack, pack_bytes(d_), column == 0, meanwhile,
                                          sums);
    };
    const bool two_rows = n_rows_ - row > kTileRows;
    const bool two_packs = n_tokens_ - token > kTileRows;
    if (two_rows) {
      two_packs ? multiply(std::true_type{}, std::true_type{})
                : multiply(std::true_type{}, std::false_type{});
    } else {
      two_packs ? multiply(std::false_type{}, std::true_type{})
                : multiply(std::false_type{}, std::false_type{});
    }
    settle(&sums);
    before_ = {};
  }

  /// Tile i of a block.
  void store(const Block& block, std::size_t i) const noexcept {
    const std::size_t row = block.row + i / 2 * kTileRows;
    const std::size_t token = block.token + i % 2 * kTileRows;
    if (!block.sums || row >= n_rows_ || token >= n_tokens_) return;
    store_scaled(reinterpret_cast<const __m512i*>(&block.sums[i / 2][i % 2]), kNoOffset, w_scale_ + row,
                 x_ + token, std::min(kTileRows, n_tokens_ - token), y_ + token * y_stride_ + row, y_stride_);
  }

  const std::int8_t* w_;
  std::size_t row_stride_;
  const float* w_scale_;
  std::size_t n_rows_;
  const std::byte* packs_;
  const QuantizedRow* x_;
  std::size_t n_tokens_, d_;
  float* y_;
  std::size_t y_stride_;
  WeightPanel panel_;
  TileSums sums_[kPairsAtOnce][2][2];
  Block before_;
};

inline void dot_packed_q8(const std::int8_t* w, std::size_t row_stride, const float* w_scale,
                          std::size_t n_rows, const std::byte* packs, const QuantizedRow* x,
                          std::size_t n_tokens, std::size_t d, float* y, std::size_t y_stride) noexcept {
  const TileRegisters registers;
  if (n_tokens * d > kManyPackBytes) {
    PanelProduct(w, row_stride, w_scale, n_rows, packs, x, n_tokens, d, y, y_stride).run();
    return;
  }
  for_tile_blocks<TileSums, kTileRows>(
      n_rows, n_tokens,
      [&](auto two_rows, auto two_packs, std::size_t row, std::size_t token, bool ahead,
          TileSums(&sums)[2][2]) {
        const std::byte* const pack = packs + token / kPackRows * pack_bytes(d);
        multiply<two_rows, two_packs>(w + row * row_stride, row_stride, pack, d, ahead, sums);
      },
      [&](const TileSums& sums, std::size_t row, std::size_t token) {
        store_scaled(reinterpret_cast<const __m512i*>(&sums), kNoOffset, w_scale + row, x + token,
                     std::min(kTileRows, n_tokens - token), y + token * y_stride + row, y_stride);
      });
}

}  // namespace
}  // namespace terrace
