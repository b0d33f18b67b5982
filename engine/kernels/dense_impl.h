// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/kernels/dense_tables.h"

// Bodies of the f32 and bf16 dot products, written once for every vector width. Each ISA file includes this
// header and names its instruction set by a struct `S`:
//   S::F32               xsimd batch of floats
//   S::fma(a, b, c)      a * b + c with one rounding
//   S::widen_bf16(p)     the next F32::size bf16 values as floats
//   S::fold(parts)       the 16 -> 8 -> 4 -> 2 -> 1 tree over kParts<S> registers
//   S::kRows, S::kTokens register block of many tokens;  S::kRowsOneToken  rows of a one-token block

#ifdef __clang__
#define TERRACE_UNROLL _Pragma("unroll")
#else
#define TERRACE_UNROLL _Pragma("GCC unroll 16")
#endif

namespace terrace {
namespace {

/// Lanes of the reduction order (dense_scalar.cpp), and the registers that hold them.
constexpr std::size_t kLanes = 16;
template <class S>
constexpr std::size_t kParts = kLanes / S::F32::size;

template <class S>
inline typename S::F32 load(const float* p) noexcept {
  return S::F32::load_unaligned(p);
}
template <class S>
inline typename S::F32 load(const std::uint16_t* p) noexcept {
  return S::widen_bf16(p);
}

template <class S, class Element, std::size_t R, std::size_t T>
struct DotBlock {
  using F32 = typename S::F32;
  static constexpr std::size_t kWidth = F32::size;

  F32 sum[R][T][kParts<S>];

  /// One group of 16 columns of every row and token.
  void step(const Element* const* w, const float* const* x) noexcept {
    TERRACE_UNROLL
    for (std::size_t p = 0; p < kParts<S>; ++p) {
      F32 xs[T];
      TERRACE_UNROLL
      for (std::size_t t = 0; t < T; ++t) xs[t] = load<S>(x[t] + p * kWidth);
      TERRACE_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        const F32 ws = load<S>(w[r] + p * kWidth);
        TERRACE_UNROLL
        for (std::size_t t = 0; t < T; ++t) sum[r][t][p] = S::fma(ws, xs[t], sum[r][t][p]);
      }
    }
  }

  /// y[t * y_stride + r] = <w_r, x_t>.
  static void run(const Element* w, std::size_t row_stride, const float* const* x, std::size_t d,
                  const Element* ahead, float* y, std::size_t y_stride) noexcept {
    DotBlock block;
    TERRACE_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      TERRACE_UNROLL
      for (std::size_t t = 0; t < T; ++t) {
        TERRACE_UNROLL
        for (std::size_t p = 0; p < kParts<S>; ++p) block.sum[r][t][p] = F32(0.0F);
      }
    }
    std::size_t i = 0;
    for (; i + kLanes <= d; i += kLanes) {
      const Element* ws[R];
      const float* xs[T];
      TERRACE_UNROLL
      for (std::size_t r = 0; r < R; ++r) ws[r] = w + r * row_stride + i;
      TERRACE_UNROLL
      for (std::size_t t = 0; t < T; ++t) xs[t] = x[t] + i;
      if constexpr (T == 1) {
        TERRACE_UNROLL
        for (std::size_t r = 0; r < R; ++r) __builtin_prefetch(ahead + r * row_stride + i);
      }
      block.step(ws, xs);
    }
    if (i < d) block.tail(w, row_stride, x, i, d);
    TERRACE_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      TERRACE_UNROLL
      for (std::size_t t = 0; t < T; ++t) y[t * y_stride + r] = S::fold(block.sum[r][t]);
    }
  }

  /// The last, partial group, filled up with zeros: nothing is read beyond column d.
  void tail(const Element* w, std::size_t row_stride, const float* const* x, std::size_t i,
            std::size_t d) noexcept {
    alignas(64) Element w_group[R][kLanes] = {};
    alignas(64) float x_group[T][kLanes] = {};
    const Element* ws[R];
    const float* xs[T];
    for (std::size_t r = 0; r < R; ++r) {
      std::memcpy(w_group[r], w + r * row_stride + i, (d - i) * sizeof(Element));
      ws[r] = w_group[r];
    }
    for (std::size_t t = 0; t < T; ++t) {
      std::memcpy(x_group[t], x[t] + i, (d - i) * sizeof(float));
      xs[t] = x_group[t];
    }
    step(ws, xs);
  }
};

template <class S, class Element, std::size_t T, std::size_t R>
inline void dot_rows_of(const Element* w, std::size_t row_stride, std::size_t n_rows, const float* const* x,
                        std::size_t d, float* y, std::size_t y_stride) noexcept {
  std::size_t r = 0;
  for (; r + R <= n_rows; r += R) {
    const Element* block = w + r * row_stride;
    const Element* ahead = r + 2 * R <= n_rows ? block + R * row_stride : block;
    DotBlock<S, Element, R, T>::run(block, row_stride, x, d, ahead, y + r, y_stride);
  }
  if constexpr (R > 1) {
    if (r < n_rows)
      dot_rows_of<S, Element, T, R / 2>(w + r * row_stride, row_stride, n_rows - r, x, d, y + r, y_stride);
  }
}

template <class S, class Element, std::size_t T>
inline void dot_tokens(const Element* w, std::size_t row_stride, std::size_t n_rows, const float* const* x,
                       std::size_t n_tokens, std::size_t d, float* y, std::size_t y_stride) noexcept {
  std::size_t t = 0;
  for (; t + T <= n_tokens; t += T) {
    dot_rows_of<S, Element, T, T == 1 ? S::kRowsOneToken : S::kRows>(w, row_stride, n_rows, x + t, d,
                                                                     y + t * y_stride, y_stride);
  }
  if constexpr (T > 1) {
    if (t < n_tokens) {
      dot_tokens<S, Element, T - 1>(w, row_stride, n_rows, x + t, n_tokens - t, d, y + t * y_stride,
                                    y_stride);
    }
  }
}

template <class S, class Element>
void dot(const Element* w, std::size_t row_stride, std::size_t n_rows, const float* const* x,
         std::size_t n_tokens, std::size_t d, float* y, std::size_t y_stride) noexcept {
  constexpr std::size_t kPanelBytes = 128 * 1024;
  std::size_t panel = n_rows;
  if (n_tokens > S::kTokens && n_rows * row_stride * sizeof(Element) > kPanelBytes) {
    panel = kPanelBytes / (row_stride * sizeof(Element));
    panel = panel < S::kRows ? S::kRows : panel / S::kRows * S::kRows;
  }
  for (std::size_t r = 0; r < n_rows; r += panel) {
    const std::size_t n = n_rows - r < panel ? n_rows - r : panel;
    dot_tokens<S, Element, S::kTokens>(w + r * row_stride, row_stride, n, x, n_tokens, d, y + r, y_stride);
  }
}

}  // namespace
}  // namespace terrace
