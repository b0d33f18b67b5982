// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/kernels/attend_page_impl.h"
#include "engine/kernels/lanes.h"

// Bodies of the kernels over gathered rows of f32, bf16 or int8, which are turned into floats on the way.

namespace terrace {
namespace {

/// Prefetches `d` elements of a row that is needed soon. Rows are scattered, so the hardware cannot foresee
/// them, and a row of int8 is one or two cache lines: enough of them are requested to keep memory busy.
template <class T>
inline void prefetch_row_after(const T* const* rows, std::size_t r, std::size_t n, std::size_t d) noexcept {
  constexpr std::size_t kGatheredAhead = 2048, kLine = 64 / sizeof(T);
  const std::size_t ahead = r + kGatheredAhead / (d * sizeof(T)) + 1;
  if (ahead >= n) return;
  for (std::size_t at = 0; at < d; at += kLine) __builtin_prefetch(rows[ahead] + at);
}

/// y[r] = scale * <q, rows[r]> for R rows at a time, so that q is loaded once for them.
template <class S, std::size_t R, class T>
inline void dot_some_rows(const float* q, const T* const* rows, std::size_t d, float scale,
                          float* y) noexcept {
  using F = typename S::F;
  F sum[R][kParts<S>];
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) sum[r][i] = S::set(0.0F);
  }
  std::size_t at = 0;
  for (; at + kLanes <= d; at += kLanes) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      const F x = S::load(q + at + i * S::kWidth);
      TERRACE_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        sum[r][i] = S::fma(x, S::load(rows[r] + at + i * S::kWidth), sum[r][i]);
      }
    }
  }
  if (at < d) {
    const PartialGroup<float> x(q + at, d - at);
    TERRACE_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      const PartialGroup<T> row(rows[r] + at, d - at);
      TERRACE_UNROLL
      for (std::size_t i = 0; i < kParts<S>; ++i) {
        sum[r][i] = S::fma(S::load(x.lanes + i * S::kWidth), S::load(row.lanes + i * S::kWidth), sum[r][i]);
      }
    }
  }
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) y[r] = S::fold(sum[r]) * scale;
}

template <class S, class T>
void dot_rows(const float* q, const T* const* rows, std::size_t n, std::size_t d, float scale,
              float* y) noexcept {
  std::size_t r = 0;
  for (; r + kRowTile <= n; r += kRowTile) {
    for (std::size_t i = r; i < r + kRowTile; ++i) prefetch_row_after(rows, i, n, d);
    dot_some_rows<S, kRowTile>(q, rows + r, d, scale, y + r);
  }
  for (; r < n; ++r) dot_some_rows<S, 1>(q, rows + r, d, scale, y + r);
}

/// y[i] = scale * sum over rows, in order, of w[row] * rows[row][at + i] for G groups of columns.
template <class S, std::size_t G, class T>
inline void sum_columns(const float* w, const T* const* rows, std::size_t n, std::size_t d, std::size_t at,
                        float scale, float* y) noexcept {
  using F = typename S::F;
  constexpr std::size_t parts = G * kParts<S>;
  F sum[parts];
  TERRACE_UNROLL
  for (std::size_t i = 0; i < parts; ++i) sum[i] = S::set(0.0F);
  for (std::size_t r = 0; r < n; ++r) {
    if (at == 0) prefetch_row_after(rows, r, n, d);
    const F weight = S::set(w[r]);
    TERRACE_UNROLL
    for (std::size_t i = 0; i < parts; ++i)
      sum[i] = S::fma(weight, S::load(rows[r] + at + i * S::kWidth), sum[i]);
  }
  TERRACE_UNROLL
  for (std::size_t i = 0; i < parts; ++i) S::store(y + i * S::kWidth, S::mul(sum[i], S::set(scale)));
}

template <class S, class T>
void weighted_sum(const float* w, const T* const* rows, std::size_t n, std::size_t d, float scale,
                  float* y) noexcept {
  std::size_t at = 0;
  constexpr std::size_t block = kGroups<S, 1>;
  for (; at + block * kLanes <= d; at += block * kLanes)
    sum_columns<S, block>(w, rows, n, d, at, scale, y + at);
  for (; at + kLanes <= d; at += kLanes) sum_columns<S, 1>(w, rows, n, d, at, scale, y + at);
  if (at == d) return;
  typename S::F sum[kParts<S>];
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) sum[i] = S::set(0.0F);
  for (std::size_t r = 0; r < n; ++r) {
    const PartialGroup<T> row(rows[r] + at, d - at);
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      sum[i] = S::fma(S::set(w[r]), S::load(row.lanes + i * S::kWidth), sum[i]);
    }
  }
  float tail[kLanes];
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) S::store(tail + i * S::kWidth, S::mul(sum[i], S::set(scale)));
  std::memcpy(y + at, tail, (d - at) * sizeof(float));
}

}  // namespace
}  // namespace terrace
