// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/kernels/attention_kernels.h"
#include "attention/kernels/prefetch.h"
#include "engine/kernels/lanes.h"

// Scores of the open group of a page (kv_page.h): its squares are transposed on the way into the registers,
// so that lanes are slots and a score is the same chain as when the group is full.
// Beyond engine/kernels/lanes.h an instruction set `S` says
//   S::transpose(rows)   rows [kWidth] of kWidth floats become columns; bits are moved, whatever they mean

namespace terrace {
namespace {

/// to[column][row] = rows[row][column] of a square, as floats. Of the rows, `stride` apart, only the first
/// `n_rows` exist; the others come out as copies of the last, so that no line is fetched for them.
template <class S, class T>
inline void turn_square(const T* rows, std::size_t stride, std::size_t n_rows, float* to) noexcept {
  constexpr std::size_t kWidth = S::kWidth;
  for (std::size_t first_row = 0; first_row < kLanes; first_row += kWidth) {
    for (std::size_t column = 0; column < kLanes; column += kWidth) {
      typename S::F part[kWidth];
      TERRACE_UNROLL
      for (std::size_t i = 0; i < kWidth; ++i) {
        const std::size_t row = first_row + i < n_rows ? first_row + i : n_rows - 1;
        part[i] = S::load(rows + row * stride + column);
      }
      S::transpose(part);
      TERRACE_UNROLL
      for (std::size_t i = 0; i < kWidth; ++i) S::store(to + (column + i) * kLanes + first_row, part[i]);
    }
  }
}

/// score_groups of attend_page_impl.h for the open group at `keys`, of `n_slots` slots.
template <class S, class T, std::size_t R>
inline void score_open_group(const T* keys, std::size_t d_k, std::size_t n_slots, const float* const* q,
                             const Ahead& ahead, float* scores) noexcept {
  using F = typename S::F;
  F sum[R][kParts<S>];
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) sum[r][i] = S::set(0.0F);
  }
  const auto add = [&](std::size_t d, const auto* channel) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      const F key = S::load(channel + i * S::kWidth);
      TERRACE_UNROLL
      for (std::size_t r = 0; r < R; ++r) sum[r][i] = S::fma(S::set(q[r][d]), key, sum[r][i]);
    }
  };
  alignas(64) float square[kLanes * kLanes];
  for (std::size_t first = 0; first < in_squares(d_k); first += kLanes) {
    const T* const rows = keys + first * kKeyTile;
    for (std::size_t s = 0; s < n_slots; ++s) prefetch<kLanes * sizeof(T)>(ahead.of(rows + s * kKeyTile));
    turn_square<S>(rows, kKeyTile, n_slots, square);
    for (std::size_t i = 0; i < kLanes; ++i) add(first + i, square + i * kLanes);
  }
  for (std::size_t d = in_squares(d_k); d < d_k; ++d) add(d, keys + d * kKeyTile);
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) S::store(scores + r * kPageSlots + i * S::kWidth, sum[r][i]);
  }
}

/// score_q8_groups of attend_page_q8_impl.h, likewise.
template <class S, std::size_t R>
inline void score_q8_open_group(const std::int8_t* keys, std::size_t n_quads, std::size_t n_slots,
                                const QuantizedQuery* q, const float* key_scale, float* scores) noexcept {
  using Q8 = typename S::Q8;
  typename Q8::Sum high[R][kParts<S>], low[R][kParts<S>];
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      high[r][i] = Q8::start(q[r].high_sum);
      low[r][i] = Q8::start(q[r].low_sum);
    }
  }
  const auto add = [&](std::size_t at, const std::int8_t* of_slots) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      const typename Q8::Keys key = Q8::load_keys(of_slots + i * S::kWidth * kQuad);
      TERRACE_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        high[r][i] = Q8::add_key(high[r][i], key, q[r].high + at * kQuad);
        low[r][i] = Q8::add_key(low[r][i], key, q[r].low + at * kQuad);
      }
    }
  };
  constexpr std::size_t kRowBytes = kLanes * kQuad;
  alignas(64) float square[kLanes * kLanes];  // each a quad
  const auto* const turned = reinterpret_cast<const std::int8_t*>(square);
  for (std::size_t first = 0; first < in_squares(n_quads); first += kLanes) {
    turn_square<S>(reinterpret_cast<const float*>(keys + first * kRowBytes), kLanes, n_slots, square);
    for (std::size_t i = 0; i < kLanes; ++i) add(first + i, turned + i * kRowBytes);
  }
  for (std::size_t at = in_squares(n_quads); at < n_quads; ++at) add(at, keys + at * kRowBytes);
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      S::store(scores + r * kPageSlots + i * S::kWidth,
               S::mul(Q8::join(high[r][i], low[r][i]), S::load(key_scale + i * S::kWidth)));
    }
  }
}

}  // namespace
}  // namespace terrace
