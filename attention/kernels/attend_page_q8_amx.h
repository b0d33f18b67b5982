// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "attention/kernels/attend_page_q8_impl.h"
#include "attention/kernels/attention_kernels.h"
#include "engine/kernels/lanes_avx512.h"
#include "engine/kernels/tiles_amx.h"

// attend_page_q8 for sixteen query rows at a time: sixteen slots of keys, or sixteen channels of 64 slots of
// values, are a tile as they lie in the page. Sums of integers are exact, so the bits are those of the other
// kernels. Queries and weights are two tiles each, their high and their low parts.

namespace terrace {
namespace {

constexpr std::size_t kSlotsPerTile = kTileRowBytes;  // of values
static_assert(kPageSlots % kSlotsPerTile == 0 && kLanes == kTileRows);

/// Sums of a tile of high parts and of one of low parts: [query row][slot or channel].
struct SplitSums {
  TileSums high, low;

  /// 128 high + low of a row, as floats.
  template <class S>
  typename S::F row(std::size_t r) const noexcept {
    return S::Q8::join(_mm512_load_si512(high.sum[r]), _mm512_load_si512(low.sum[r]));
  }
};

/// Products of tiles 2 (high) and 3 (low) with the one at `p`.
inline void add_products_of(const void* p, std::size_t stride) noexcept {
  _tile_loadd(4, p, stride);
  _tile_dpbssd(0, 2, 4);
  _tile_dpbssd(1, 3, 4);
}
inline void take_sums(SplitSums& sums) noexcept {
  _tile_stored(0, &sums.high, kTileRowBytes);
  _tile_stored(1, &sums.low, kTileRowBytes);
  settle(&sums);
}

/// Sixteen query rows, tile by tile.
struct alignas(64) QueryTiles {
  static constexpr std::size_t kMost = 4;
  static constexpr bool fit(std::size_t d_k) noexcept {
    return d_k % kTileRowBytes == 0 && d_k <= kMost * kTileRowBytes;
  }

  QueryTiles(const QuantizedQuery* q, std::size_t d_k) noexcept : n(d_k / kTileRowBytes) {
    for (std::size_t r = 0; r < kTileRows; ++r) {
      for (std::size_t t = 0; t < n; ++t) {
        std::memcpy(high[t][r], q[r].high + t * kTileRowBytes, kTileRowBytes);
        std::memcpy(low[t][r], q[r].low + t * kTileRowBytes, kTileRowBytes);
      }
    }
    settle(this);
  }
  void load(std::size_t t) const noexcept {
    _tile_loadd(2, high[t], kTileRowBytes);
    _tile_loadd(3, low[t], kTileRowBytes);
  }

  std::int8_t high[kMost][kTileRows][kTileRowBytes];
  std::int8_t low[kMost][kTileRows][kTileRowBytes];
  std::size_t n;
};

/// score_q8_page() for rows [row, row + 16).
template <class S>
inline void score_q8_tiles(const PageTask& task, std::size_t row, Groups seen, const Ahead& ahead,
                           float* scores) noexcept {
  const QueryTiles queries(task.quantized_q + row, task.d_k);
  const std::size_t n_quads = quads(task.d_k);
  const std::size_t group_bytes = n_quads * kQ8GroupBytes;
  const auto* const keys = static_cast<const std::int8_t*>(task.keys);
  const std::size_t full = std::min(task.n_slots / kLanes, seen.last);
  if (queries.n == 1) queries.load(0);
  for (std::size_t group = seen.first; group < full; ++group) {
    const std::int8_t* const of_group = keys + group * group_bytes;
    _tile_zero(0);
    _tile_zero(1);
    for (std::size_t t = 0; t < queries.n; ++t) {
      const std::int8_t* const tile = of_group + t * kTileRows * kQ8GroupBytes;
      for (std::size_t line = 0; line < kTileRows; ++line) {
        prefetch<kQ8GroupBytes, kIntoSecondCache>(ahead.of(tile + line * kQ8GroupBytes));
      }
      if (queries.n > 1) queries.load(t);
      add_products_of(tile, kQ8GroupBytes);
    }
    SplitSums sums;
    take_sums(sums);
    const auto scale = S::load(task.key_scale + group * kLanes);
    TERRACE_UNROLL
    for (std::size_t r = 0; r < kTileRows; ++r) {
      S::store(scores + r * kPageSlots + group * kLanes, S::mul(sums.row<S>(r), scale));
    }
  }
  constexpr std::size_t kRows = S::Q8::kRows;
  for (std::size_t r = 0; full < seen.last && r < kTileRows; r += kRows) {
    score_q8_open_group<S, kRows>(keys + full * group_bytes, n_quads, task.n_slots % kLanes,
                                  task.quantized_q + row + r, task.key_scale + full * kLanes,
                                  scores + r * kPageSlots + full * kLanes);
  }
}

/// add_q8_values() for sixteen rows, whose weights are 0 at slots that nobody sees.
template <class S>
inline void add_q8_values_by_tiles(const PageTask& task, Groups seen, const std::int8_t* high,
                                   const std::int8_t* low, const float* unit, const Ahead& ahead, float* sums,
                                   std::size_t sum_stride) noexcept {
  const std::size_t width = padded_width(task.d_v);
  const std::size_t stride = width * kQuad;
  const std::size_t begin = seen.first * kLanes / kSlotsPerTile;
  const std::size_t end = (seen.last * kLanes + kSlotsPerTile - 1) / kSlotsPerTile;
  settle(high);
  settle(low);
  for (std::size_t c = 0; c < width; c += kLanes) {
    _tile_zero(0);
    _tile_zero(1);
    for (std::size_t t = begin; t < end; ++t) {
      const auto* const tile =
          static_cast<const std::int8_t*>(task.values) + t * kTileRows * stride + c * kQuad;
      for (std::size_t line = 0; line < kTileRows; ++line) {
        prefetch<kQ8GroupBytes, kIntoSecondCache>(ahead.of(tile + line * stride));
      }
      _tile_loadd(2, high + t * kSlotsPerTile, kPageSlots);
      _tile_loadd(3, low + t * kSlotsPerTile, kPageSlots);
      add_products_of(tile, stride);
    }
    SplitSums of_channels;
    take_sums(of_channels);
    TERRACE_UNROLL
    for (std::size_t r = 0; r < kTileRows; ++r) {
      S::store(sums + r * sum_stride + c, S::mul(of_channels.row<S>(r), S::set(unit[r])));
    }
  }
}

/// attend_q8_rows() for rows [row, row + 16).
template <class S>
inline void attend_q8_tiles(const PageTask& task, std::size_t row) noexcept {
  const std::size_t state_stride = state_floats(task.d_v);
  const Groups seen = groups_seen<kTileRows>(task.spans + row);
  const Ahead ahead(task, row, padded_width(task.d_v), kBytesAhead);
  alignas(64) float scores[kTileRows * kPageSlots];
  alignas(64) std::int8_t high[kTileRows * kPageSlots] = {};
  alignas(64) std::int8_t low[kTileRows * kPageSlots] = {};
  float unit[kTileRows];
  score_q8_tiles<S>(task, row, seen, ahead, scores);
  float* const states = task.states + row * state_stride;
  for (std::size_t r = 0; r < kTileRows; ++r) {
    float* const of_row = scores + r * kPageSlots;
    weigh_row<S>(task, row + r, task.quantized_q[row + r].scale * task.scale, of_row,
                 states + r * state_stride);
    unit[r] = quantize_weights<S>(task, task.spans[row + r], seen, ahead, of_row, high + r * kPageSlots,
                                  low + r * kPageSlots);
  }
  add_q8_values_by_tiles<S>(task, seen, high, low, unit, ahead, states + kStateHeader, state_stride);
}

template <class S>
void attend_page_q8_by_tiles(const PageTask& task) noexcept {
  std::size_t row = 0;
  if (task.n_rows >= kTileRows && QueryTiles::fit(task.d_k)) {
    const TileRegisters registers;
    for (; row + kTileRows <= task.n_rows; row += kTileRows) attend_q8_tiles<S>(task, row);
  }
  constexpr std::size_t kRows = S::Q8::kRows;
  for (; row + kRows <= task.n_rows; row += kRows) attend_q8_rows<S, kRows>(task, row);
  for (; row < task.n_rows; ++row) attend_q8_rows<S, 1>(task, row);
}

}  // namespace
}  // namespace terrace
