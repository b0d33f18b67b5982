// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/dtype.h"
#include "engine/kernels/lanes.h"
#include "engine/tensor.h"

// y += sum over k, in order, of a[k] * row_k. Rows are taken kAtOnce at a time, so y is loaded and stored
// once per kAtOnce rows and as many streams of memory are in flight; within one element the chain of
// multiply-adds stays in order.

namespace terrace {
namespace {

constexpr std::size_t kAtOnce = 4;

/// Bytes that one prefetch fetches.
constexpr std::size_t kLineBytes = 64;

/// One group of kLanes columns of N rows.
template <class S, std::size_t N, class RowAt>
inline void axpy_group(const float* a, RowAt row_at, float* y) noexcept {
  TERRACE_UNROLL
  for (std::size_t p = 0; p < kParts<S>; ++p) {
    typename S::F sum = S::load(y + p * S::kWidth);
    TERRACE_UNROLL
    for (std::size_t k = 0; k < N; ++k) sum = S::fma(S::set(a[k]), S::load(row_at(k) + p * S::kWidth), sum);
    S::store(y + p * S::kWidth, sum);
  }
}

template <class S, class Element, std::size_t N>
inline void axpy_some(const float* a, const Element* const* rows, std::size_t left, float* y,
                      std::size_t d) noexcept {
  float coefficient[N];
  const Element* row[N];
  const Element* next[N];  // the rows after these: on their way while these are used
  const bool more = left >= 2 * N;
  for (std::size_t k = 0; k < N; ++k) {
    coefficient[k] = a[k];
    row[k] = rows[k];
    next[k] = more ? rows[N + k] : nullptr;
  }
  std::size_t i = 0;
  for (; i + kLanes <= d; i += kLanes) {
    if (N > 1 && more && i % (kLineBytes / sizeof(Element)) == 0) {
      TERRACE_UNROLL
      for (std::size_t k = 0; k < N; ++k) __builtin_prefetch(next[k] + i);
    }
    axpy_group<S, N>(
        coefficient, [&](std::size_t k) { return row[k] + i; }, y + i);
  }
  if (i == d) return;
  alignas(64) Element tail[N][kLanes] = {};
  PartialGroup<float> y_tail(y + i, d - i);
  for (std::size_t k = 0; k < N; ++k) std::memcpy(tail[k], row[k] + i, (d - i) * sizeof(Element));
  axpy_group<S, N>(
      coefficient, [&](std::size_t k) { return tail[k]; }, y_tail.lanes);
  std::memcpy(y + i, y_tail.lanes, (d - i) * sizeof(float));
}

template <class S, class Element>
void axpy(const float* a, const Element* const* rows, std::size_t n, float* y, std::size_t d) noexcept {
  std::size_t k = 0;
  for (; k + kAtOnce <= n; k += kAtOnce) axpy_some<S, Element, kAtOnce>(a + k, rows + k, n - k, y, d);
  for (; k < n; ++k) axpy_some<S, Element, 1>(a + k, rows + k, n - k, y, d);
}

/// 4-bit rows are unpacked to int8 in runs of 64 columns; a coefficient per row and group holds the scale.
template <class S, std::size_t N>
inline void axpy_q4_some(const float* a, const std::uint8_t* const* rows, const std::uint16_t* const* scales,
                         std::size_t left, float* y, std::size_t d) noexcept {
  constexpr std::size_t kRun = 64;
  for (std::size_t i = 0; i < d; i += kRun) {
    alignas(64) std::int8_t run[N][kRun];
    float coefficient[2][N];
    TERRACE_UNROLL
    for (std::size_t k = 0; k < N; ++k) {
      if (left >= 2 * N) __builtin_prefetch(rows[N + k] + i / 2);
      S::unpack_q4(rows[k] + i / 2, run[k]);
      coefficient[0][k] = a[k] * bf16_to_f32(scales[k][i / kQ4Group]);
      coefficient[1][k] = a[k] * bf16_to_f32(scales[k][i / kQ4Group + 1]);
    }
    TERRACE_UNROLL
    for (std::size_t g = 0; g < kRun; g += kLanes) {
      axpy_group<S, N>(
          coefficient[g / kQ4Group], [&](std::size_t k) { return run[k] + g; }, y + i + g);
    }
  }
}

template <class S>
void axpy_q4(const float* a, const std::uint8_t* const* rows, const std::uint16_t* const* scales,
             std::size_t n, float* y, std::size_t d) noexcept {
  std::size_t k = 0;
  for (; k + kAtOnce <= n; k += kAtOnce) axpy_q4_some<S, kAtOnce>(a + k, rows + k, scales + k, n - k, y, d);
  for (; k < n; ++k) axpy_q4_some<S, 1>(a + k, rows + k, scales + k, n - k, y, d);
}

}  // namespace
}  // namespace terrace
