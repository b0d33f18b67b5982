// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/kernels/dense_blocks.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/kernels/lanes.h"
#include "engine/tensor.h"

// Dot products of int8 weight rows with int8 activation rows. Integer sums are exact, so their order is free.
// Beyond lanes.h an instruction set says
//   S::kPrefetch                      bytes that each stream fetches ahead; 0 = leave it to the hardware
//   S::Q8::kBytes                     columns of a step
//   S::Q8::kRows, kTokens, kStreams   register blocks, see dense_blocks.h
//   S::Q8::kChains                    sums that must be in flight to hide the latency of an addition
//   S::Q8::X, X S::Q8::load_x(q)      the activations of a step, prepared once for all rows
//   S::Q8::load_w(p)                  the weights of a step
//   S::Q8::load_part_x(q, n), load_part_w(p, n)   n < kBytes columns, nothing beyond them is read; the rest
//                                     of X is 0
//   S::Q8::Sum, Sum S::Q8::zero()     partial sums
//   S::Q8::add(sum, w, X)             sum + products of the weights w with X
//   S::Q8::merge(a, b)                a + b
//   S::Q8::total(sum, x_sum)          sum of w * x, where x_sum is the sum of x
//   S::Q8::put_four(a, b, c, d, w_scale, x, y, step)
//                                     y[k * step] = float(total of the k-th) * (w_scale[k * step] * x.scale)

namespace terrace {
namespace {

/// The last, partial step of a row for registers without masks: `n` bytes, then zeros.
template <std::size_t N>
struct PartialBytes {
  PartialBytes(const std::int8_t* p, std::size_t n) noexcept { std::memcpy(bytes, p, n); }
  alignas(64) std::int8_t bytes[N] = {};
};

template <class S>
struct Q8Dot {
  using Q8 = typename S::Q8;
  using Sum = typename Q8::Sum;
  static constexpr std::size_t kRows = Q8::kRows;
  static constexpr std::size_t kTokens = Q8::kTokens;
  static constexpr std::size_t kStreams = Q8::kStreams;

  const std::int8_t* w;
  std::size_t row_stride;
  const float* w_scale;
  const QuantizedRow* x;
  std::size_t d;
  float* y;
  std::size_t y_stride;
  std::size_t ahead;  ///< bytes to prefetch ahead

  std::size_t row_bytes() const noexcept { return d; }

  template <std::size_t R, std::size_t T>
  void run(std::size_t row, std::size_t row_step, std::size_t token) const noexcept {
    // A block of few outputs has too few sums to hide the latency of an addition: its columns take turns.
    constexpr std::size_t kTurns = R * T < Q8::kChains ? Q8::kChains / (R * T) : 1;
    Sum sum[kTurns][R][T];
    TERRACE_UNROLL
    for (std::size_t u = 0; u < kTurns; ++u) {
      TERRACE_UNROLL
      for (std::size_t k = 0; k < R; ++k) {
        TERRACE_UNROLL
        for (std::size_t j = 0; j < T; ++j) sum[u][k][j] = Q8::zero();
      }
    }
    const std::int8_t* const base = w + row * row_stride;
    const std::size_t distance = row_step * row_stride;
    const std::int8_t* xs[T];
    for (std::size_t j = 0; j < T; ++j) xs[j] = x[token + j].q;
    const auto step = [&](std::size_t i, Sum(&sums)[R][T]) {
      if constexpr (S::kPrefetch > 0) {
        TERRACE_UNROLL
        for (std::size_t k = 0; k < R; ++k) __builtin_prefetch(base + k * distance + i + ahead);
      }
      add_step<R, T>([&](std::size_t k) { return Q8::load_w(base + k * distance + i); },
                     [&](std::size_t j) { return Q8::load_x(xs[j] + i); }, sums);
    };
    std::size_t i = 0;
    for (; i + kTurns * Q8::kBytes <= d; i += kTurns * Q8::kBytes) {
      TERRACE_UNROLL
      for (std::size_t u = 0; u < kTurns; ++u) step(i + u * Q8::kBytes, sum[u]);
    }
    if constexpr (kTurns > 1) {
      for (; i + Q8::kBytes <= d; i += Q8::kBytes) step(i, sum[0]);
    }
    if (i < d) {
      // x may continue beyond d (a window); w may end there.
      add_step<R, T>([&](std::size_t k) { return Q8::load_part_w(base + k * distance + i, d - i); },
                     [&](std::size_t j) { return Q8::load_part_x(xs[j] + i, d - i); }, sum[0]);
    }
    TERRACE_UNROLL
    for (std::size_t u = 1; u < kTurns; ++u) {
      TERRACE_UNROLL
      for (std::size_t k = 0; k < R; ++k) {
        TERRACE_UNROLL
        for (std::size_t j = 0; j < T; ++j) sum[0][k][j] = Q8::merge(sum[0][k][j], sum[u][k][j]);
      }
    }
    TERRACE_UNROLL
    for (std::size_t j = 0; j < T; ++j) put<R, T>(row, row_step, token, j, sum[0]);
  }

 private:
  template <std::size_t R, std::size_t T, class WAt, class XAt>
  static void add_step(WAt w_at, XAt x_at, Sum (&sum)[R][T]) noexcept {
    typename Q8::X xs[T];
    TERRACE_UNROLL
    for (std::size_t j = 0; j < T; ++j) xs[j] = x_at(j);
    TERRACE_UNROLL
    for (std::size_t k = 0; k < R; ++k) {
      const auto ws = w_at(k);
      TERRACE_UNROLL
      for (std::size_t j = 0; j < T; ++j) sum[k][j] = Q8::add(sum[k][j], ws, xs[j]);
    }
  }

  /// Outputs of one token of the block.
  template <std::size_t R, std::size_t T>
  void put(std::size_t row, std::size_t row_step, std::size_t token, std::size_t j,
           const Sum (&sum)[R][T]) const noexcept {
    const QuantizedRow& xj = x[token + j];
    float* const out = y + (token + j) * y_stride + row;
    if constexpr (R == 4) {
      Q8::put_four(sum[0][j], sum[1][j], sum[2][j], sum[3][j], w_scale + row, xj, out, row_step);
    } else {
      TERRACE_UNROLL
      for (std::size_t k = 0; k < R; ++k) {
        out[k * row_step] =
            static_cast<float>(Q8::total(sum[k][j], xj.sum)) * (w_scale[row + k * row_step] * xj.scale);
      }
    }
  }
};

template <class S>
void dot_q8(const std::int8_t* w, std::size_t row_stride, const float* w_scale, std::size_t n_rows,
            const QuantizedRow* x, std::size_t n_tokens, std::size_t d, float* y,
            std::size_t y_stride) noexcept {
  const std::size_t ahead = n_rows >= 2 * S::Q8::kStreams ? S::kPrefetch : 0;
  run_all(Q8Dot<S>{w, row_stride, w_scale, x, d, y, y_stride, ahead}, n_rows, n_tokens);
}

/// Rows that lie anywhere: the loads of several hide each other's latency.
template <class S>
struct GatheredQ8Dot {
  using Q8 = typename S::Q8;
  using Sum = typename Q8::Sum;

  const std::int8_t* const* rows;
  const float* w_scale;
  const QuantizedRow& x;
  std::size_t d;
  float* y;

  template <std::size_t R, std::size_t /*T*/>
  void run(std::size_t row, std::size_t row_step, std::size_t /*token*/) const noexcept {
    if constexpr (R < 4) {
      for (std::size_t k = 0; k < R; ++k) {
        const std::size_t r = row + k * row_step;
        const Q8Dot<S> one{rows[r], d, w_scale + r, &x, d, y + r, 1, 0};
        one.template run<1, 1>(0, 1, 0);
      }
    } else {
      const std::int8_t* ws[R];
      Sum sum[R];
      TERRACE_UNROLL
      for (std::size_t k = 0; k < R; ++k) {
        ws[k] = rows[row + k * row_step];
        sum[k] = Q8::zero();
      }
      std::size_t i = 0;
      for (; i + Q8::kBytes <= d; i += Q8::kBytes) {
        const typename Q8::X xs = Q8::load_x(x.q + i);
        TERRACE_UNROLL
        for (std::size_t k = 0; k < R; ++k) sum[k] = Q8::add(sum[k], Q8::load_w(ws[k] + i), xs);
      }
      if (i < d) {
        const typename Q8::X xs = Q8::load_part_x(x.q + i, d - i);
        TERRACE_UNROLL
        for (std::size_t k = 0; k < R; ++k) sum[k] = Q8::add(sum[k], Q8::load_part_w(ws[k] + i, d - i), xs);
      }
      Q8::put_four(sum[0], sum[1], sum[2], sum[3], w_scale + row, x, y + row, row_step);
    }
  }
};

template <class S>
void dot_gathered_q8(const std::int8_t* const* rows, const float* w_scale, std::size_t n,
                     const QuantizedRow& x, std::size_t d, float* y) noexcept {
  run_streams<4, 1>(GatheredQ8Dot<S>{rows, w_scale, x, d, y}, n, 1);
}

}  // namespace
}  // namespace terrace
