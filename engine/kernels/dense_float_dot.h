// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>

#include "engine/kernels/dense_blocks.h"
#include "engine/kernels/lanes.h"

// Dot products of f32 or bf16 weight rows with f32 activation rows, in the reduction order of
// dense_scalar.cpp. Beyond lanes.h an instruction set says
//   S::kRows, S::kTokens, S::kStreams   register blocks, see dense_blocks.h
//   S::kPrefetch                        bytes that each stream fetches ahead; 0 = leave it to the hardware
//   S::keep(x)                          x, in a register: the compiler may not reload it at every use
//   S::load_tight(p)                    as load, for loops that have no register left for a constant

namespace terrace {
namespace {

template <class S, class Element>
struct FloatDot {
  using F = typename S::F;
  static constexpr std::size_t kRows = S::kRows;
  static constexpr std::size_t kTokens = S::kTokens;
  static constexpr std::size_t kStreams = S::kStreams;
  static constexpr std::size_t kParts = terrace::kParts<S>;

  const Element* w;
  std::size_t row_stride;
  const float* const* x;
  std::size_t d;
  float* y;
  std::size_t y_stride;
  std::size_t ahead;  ///< bytes to prefetch ahead

  std::size_t row_bytes() const noexcept { return d * sizeof(Element); }

  template <std::size_t R, std::size_t T>
  void run(std::size_t row, std::size_t row_step, std::size_t token) const noexcept {
    F sum[R][T][kParts];
    TERRACE_UNROLL
    for (std::size_t k = 0; k < R; ++k) {
      TERRACE_UNROLL
      for (std::size_t j = 0; j < T; ++j) {
        TERRACE_UNROLL
        for (std::size_t p = 0; p < kParts; ++p) sum[k][j][p] = S::set(0.0F);
      }
    }
    const Element* const base = w + row * row_stride;
    const std::size_t distance = row_step * row_stride;
    const float* xs[T];
    for (std::size_t j = 0; j < T; ++j) xs[j] = x[token + j];
    std::size_t i = 0;
    for (; i + kLanes <= d; i += kLanes) {
      if constexpr (S::kPrefetch > 0) {
        TERRACE_UNROLL
        for (std::size_t k = 0; k < R; ++k) {
          __builtin_prefetch(reinterpret_cast<const char*>(base + k * distance + i) + ahead);
        }
      }
      add_group<R, T>([&](std::size_t k) { return base + k * distance + i; },
                      [&](std::size_t j) { return xs[j] + i; }, sum);
    }
    if (i < d) add_tail<R, T>(base, distance, xs, i, sum);

    TERRACE_UNROLL
    for (std::size_t k = 0; k < R; ++k) {
      TERRACE_UNROLL
      for (std::size_t j = 0; j < T; ++j) {
        y[(token + j) * y_stride + row + k * row_step] = S::fold(sum[k][j]);
      }
    }
  }

 private:
  /// Adds one group of kLanes columns.
  template <std::size_t R, std::size_t T, class W, class X>
  static void add_group(W w_at, X x_at, F (&sum)[R][T][kParts]) noexcept {
    TERRACE_UNROLL
    for (std::size_t p = 0; p < kParts; ++p) {
      F xs[T];
      TERRACE_UNROLL
      for (std::size_t j = 0; j < T; ++j) xs[j] = S::keep(S::load(x_at(j) + p * S::kWidth));
      TERRACE_UNROLL
      for (std::size_t k = 0; k < R; ++k) {
        const F ws = T > 1 ? S::load_tight(w_at(k) + p * S::kWidth) : S::load(w_at(k) + p * S::kWidth);
        TERRACE_UNROLL
        for (std::size_t j = 0; j < T; ++j) sum[k][j][p] = S::fma(ws, xs[j], sum[k][j][p]);
      }
    }
  }

  // Unrolled like the main loop: an accumulator that is indexed at run time anywhere lives in memory
  // everywhere.
  template <std::size_t R, std::size_t T>
  void add_tail(const Element* base, std::size_t distance, const float* const* xs, std::size_t i,
                F (&sum)[R][T][kParts]) const noexcept {
    alignas(64) Element w_group[R][kLanes] = {};
    alignas(64) float x_group[T][kLanes] = {};
    for (std::size_t k = 0; k < R; ++k)
      std::memcpy(w_group[k], base + k * distance + i, (d - i) * sizeof(Element));
    for (std::size_t j = 0; j < T; ++j) std::memcpy(x_group[j], xs[j] + i, (d - i) * sizeof(float));
    add_group<R, T>([&](std::size_t k) { return w_group[k]; }, [&](std::size_t j) { return x_group[j]; },
                    sum);
  }
};

template <class S, class Element>
void dot(const Element* w, std::size_t row_stride, std::size_t n_rows, const float* const* x,
         std::size_t n_tokens, std::size_t d, float* y, std::size_t y_stride) noexcept {
  // Nothing to fetch ahead behind the end of a few gathered rows.
  const std::size_t ahead = n_rows >= 2 * S::kStreams ? S::kPrefetch : 0;
  run_all(FloatDot<S, Element>{w, row_stride, x, d, y, y_stride, ahead}, n_rows, n_tokens);
}

/// Rows that lie anywhere: a row alone is one chain of additions, several hide each other's latency.
template <class S, class Element>
struct GatheredDot {
  using F = typename S::F;
  static constexpr std::size_t kParts = terrace::kParts<S>;

  const Element* const* rows;
  const float* x;
  std::size_t d;
  float* y;

  template <std::size_t R, std::size_t /*T*/>
  void run(std::size_t row, std::size_t row_step, std::size_t /*token*/) const noexcept {
    F sum[R][kParts];
    const Element* ws[R];
    TERRACE_UNROLL
    for (std::size_t k = 0; k < R; ++k) {
      ws[k] = rows[row + k * row_step];
      TERRACE_UNROLL
      for (std::size_t p = 0; p < kParts; ++p) sum[k][p] = S::set(0.0F);
    }
    std::size_t i = 0;
    for (; i + kLanes <= d; i += kLanes) {
      add_group<R>([&](std::size_t k) { return ws[k] + i; }, x + i, sum);
    }
    if (i < d) {
      alignas(64) Element w_group[R][kLanes] = {};
      for (std::size_t k = 0; k < R; ++k) std::memcpy(w_group[k], ws[k] + i, (d - i) * sizeof(Element));
      const PartialGroup<float> x_group(x + i, d - i);
      add_group<R>([&](std::size_t k) { return w_group[k]; }, x_group.lanes, sum);
    }
    TERRACE_UNROLL
    for (std::size_t k = 0; k < R; ++k) y[row + k * row_step] = S::fold(sum[k]);
  }

 private:
  template <std::size_t R, class W>
  static void add_group(W w_at, const float* x, F (&sum)[R][kParts]) noexcept {
    TERRACE_UNROLL
    for (std::size_t p = 0; p < kParts; ++p) {
      const F xs = S::load(x + p * S::kWidth);
      TERRACE_UNROLL
      for (std::size_t k = 0; k < R; ++k) {
        sum[k][p] = S::fma(S::load(w_at(k) + p * S::kWidth), xs, sum[k][p]);
      }
    }
  }
};

template <class S, class Element>
void dot_gathered(const Element* const* rows, std::size_t n, const float* x, std::size_t d,
                  float* y) noexcept {
  run_streams<S::kStreams, 1>(GatheredDot<S, Element>{rows, x, d, y}, n, 1);
}

}  // namespace
}  // namespace terrace
