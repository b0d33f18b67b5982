// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/kernels/dense_blocks.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/kernels/lanes.h"
#include "engine/tensor.h"

// Dot products of 4-bit weight rows with int8 activation rows, in the order of dense_scalar.cpp: four rows
// and a round of four groups at a time are sixteen integer sums, which fill kLanes lanes in an order of the
// instruction set's own. Beyond lanes.h an instruction set says
//   S::kPrefetch                      bytes that each row fetches ahead; 0 = leave it to the hardware
//   S::Q4::kTokens                    activation rows of a block
//   S::Q4::X, X S::Q4::load_x(q)      the activations of a round
//   S::Q4::W, W S::Q4::load_w(p)      the weights of a round of one row
//   S::Q4::sums(W (&)[4], X, F (&)[kParts])   sums of a group's products [row][group], as floats
//   S::Q4::scales(p (&)[4], i, F (&)[kParts]) their scales, of which the first of row r is p[r][i]
//   S::Q4::fold(F (&)[kParts], float*)        (sum 0 + sum 2) + (sum 1 + sum 3) of each row

namespace terrace {
namespace {

constexpr std::size_t kQ4Round = kQ4Sums * kQ4Group;  // columns

/// Four rows: where they and their scales begin.
struct FourQ4Rows {
  const std::uint8_t* w[4];
  const std::uint16_t* scale[4];
};

/// The last two groups of a row that does not end with a whole round, then zeros.
struct Q4RestOfRound {
  Q4RestOfRound(const FourQ4Rows& rows, std::size_t column) noexcept {
    for (std::size_t r = 0; r < 4; ++r) {
      std::memcpy(w[r], rows.w[r] + column / 2, kQ4Columns / 2);
      std::memcpy(scale[r], rows.scale[r] + column / kQ4Group, sizeof(scale[r]) / 2);
    }
  }
  FourQ4Rows rows() const noexcept {
    return {{w[0], w[1], w[2], w[3]}, {scale[0], scale[1], scale[2], scale[3]}};
  }
  alignas(64) std::uint8_t w[4][kQ4Round / 2] = {};
  std::uint16_t scale[4][kQ4Sums] = {};
};

/// totals[j][r] = <row r, x_j> without the scale of x_j. `ahead`: bytes to prefetch ahead.
template <class S, std::size_t T>
inline void dot_four_q4(const FourQ4Rows& rows, const std::int8_t* const (&xs)[T], std::size_t d,
                        std::size_t ahead, float (&totals)[T][4]) noexcept {
  using F = typename S::F;
  using Q4 = typename S::Q4;
  F sum[T][kParts<S>];
  const auto clear = [&] {
    TERRACE_UNROLL
    for (std::size_t j = 0; j < T; ++j) {
      TERRACE_UNROLL
      for (std::size_t p = 0; p < kParts<S>; ++p) sum[j][p] = S::set(0.0F);
    }
  };
  const auto add_round = [&](const FourQ4Rows& from, std::size_t column, auto x_at) {
    typename Q4::W w[4];
    TERRACE_UNROLL
    for (std::size_t r = 0; r < 4; ++r) w[r] = Q4::load_w(from.w[r] + column / 2);
    F scale[kParts<S>];
    Q4::scales(from.scale, column / kQ4Group, scale);
    TERRACE_UNROLL
    for (std::size_t j = 0; j < T; ++j) {
      F products[kParts<S>];
      Q4::sums(w, Q4::load_x(x_at(j)), products);
      TERRACE_UNROLL
      for (std::size_t p = 0; p < kParts<S>; ++p) sum[j][p] = S::fma(products[p], scale[p], sum[j][p]);
    }
  };
  const auto fold = [&] {
    TERRACE_UNROLL
    for (std::size_t j = 0; j < T; ++j) {
      float folded[4];
      Q4::fold(sum[j], folded);
      for (std::size_t r = 0; r < 4; ++r) totals[j][r] += folded[r];
    }
  };
  for (std::size_t j = 0; j < T; ++j) std::fill_n(totals[j], 4, 0.0F);
  const std::size_t rounds_end = d / kQ4Round * kQ4Round;
  for (std::size_t begin = 0; begin < d; begin += kQ4Span) {
    clear();
    const std::size_t end = std::min(begin + kQ4Span, rounds_end);
    for (std::size_t i = begin; i < end; i += kQ4Round) {
      if constexpr (S::kPrefetch > 0) {
        TERRACE_UNROLL
        for (std::size_t r = 0; r < 4; ++r) __builtin_prefetch(rows.w[r] + i / 2 + ahead);
      }
      add_round(rows, i, [&](std::size_t j) { return xs[j] + i; });
    }
    if (rounds_end < d && d - begin <= kQ4Span) {
      const Q4RestOfRound rest(rows, rounds_end);
      alignas(64) std::int8_t x[T][kQ4Round] = {};
      for (std::size_t j = 0; j < T; ++j) std::memcpy(x[j], xs[j] + rounds_end, kQ4Columns);
      add_round(rest.rows(), 0, [&](std::size_t j) { return x[j]; });
    }
    fold();
  }
}

template <class S>
struct Q4Dot {
  static constexpr std::size_t kRows = 4;
  static constexpr std::size_t kTokens = S::Q4::kTokens;
  static constexpr std::size_t kStreams = 4;

  const std::uint8_t* w;
  std::size_t row_stride;  ///< columns
  const std::uint16_t* w_scale;
  const QuantizedRow* x;
  std::size_t d;
  float* y;
  std::size_t y_stride;
  std::size_t ahead;  ///< bytes to prefetch ahead

  std::size_t row_bytes() const noexcept { return d / 2; }

  template <std::size_t R, std::size_t T>
  void run(std::size_t row, std::size_t row_step, std::size_t token) const noexcept {
    FourQ4Rows rows;
    for (std::size_t r = 0; r < 4; ++r) {
      // Where there are fewer than four rows, the last one stands in for those that are missing.
      const std::size_t first = (row + std::min(r, R - 1) * row_step) * row_stride;
      rows.w[r] = w + first / 2;
      rows.scale[r] = w_scale + first / kQ4Group;
    }
    const std::int8_t* xs[T];
    for (std::size_t j = 0; j < T; ++j) xs[j] = x[token + j].q;
    float totals[T][4];
    dot_four_q4<S>(rows, xs, d, ahead, totals);
    for (std::size_t j = 0; j < T; ++j) {
      float* const out = y + (token + j) * y_stride + row;
      for (std::size_t r = 0; r < R; ++r) out[r * row_step] = totals[j][r] * x[token + j].scale;
    }
  }
};

template <class S>
void dot_q4(const std::uint8_t* w, std::size_t row_stride, const std::uint16_t* w_scale, std::size_t n_rows,
            const QuantizedRow* x, std::size_t n_tokens, std::size_t d, float* y,
            std::size_t y_stride) noexcept {
  const std::size_t ahead = n_rows >= 2 * Q4Dot<S>::kStreams ? S::kPrefetch : 0;
  run_all(Q4Dot<S>{w, row_stride, w_scale, x, d, y, y_stride, ahead}, n_rows, n_tokens);
}

/// Rows that lie anywhere: the loads of four hide each other's latency.
template <class S>
void dot_gathered_q4(const std::uint8_t* const* rows, const std::uint16_t* const* w_scale, std::size_t n,
                     const QuantizedRow& x, std::size_t d, float* y) noexcept {
  const std::int8_t* const xs[1] = {x.q};
  for (std::size_t k = 0; k < n; k += 4) {
    const std::size_t n_here = std::min<std::size_t>(4, n - k);
    FourQ4Rows four;
    for (std::size_t r = 0; r < 4; ++r) {
      four.w[r] = rows[k + std::min(r, n_here - 1)];
      four.scale[r] = w_scale[k + std::min(r, n_here - 1)];
    }
    float totals[1][4];
    dot_four_q4<S>(four, xs, d, 0, totals);
    for (std::size_t r = 0; r < n_here; ++r) y[k + r] = totals[0][r] * x.scale;
  }
}

}  // namespace
}  // namespace terrace
