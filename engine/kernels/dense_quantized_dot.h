// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/kernels/dense_blocks.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/kernels/lanes.h"
#include "engine/tensor.h"

// Dot products of int8 and 4-bit weight rows with int8 activation rows. Integer sums are exact, so for q8 the
// order is free; q4 has the lanes of dense_scalar.cpp. Beyond lanes.h an instruction set says
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
//   S::Q4::kRows, kTokens, kStreams
//   S::Q4::X, X S::Q4::load_x(q)      the activations of a run of 64 columns
//   S::Q4::W, W S::Q4::load_w(p)      the weights of a run
//   S::Q4::lanes(W, X, F out[])       kLanes sums of four products each, as floats
//   S::Q4::scales(p, F out[])         their scales, from the two at p

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
      // x may go on behind its end (a window), w may end there.
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

template <class S>
struct Q4Dot {
  using F = typename S::F;
  using Q4 = typename S::Q4;
  static constexpr std::size_t kRows = Q4::kRows;
  static constexpr std::size_t kTokens = Q4::kTokens;
  static constexpr std::size_t kStreams = Q4::kStreams;
  static constexpr std::size_t kParts = terrace::kParts<S>;
  static constexpr std::size_t kRun = 64;  // columns whose weights share 32 bytes

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
    F sum[R][T][kParts];
    TERRACE_UNROLL
    for (std::size_t k = 0; k < R; ++k) {
      TERRACE_UNROLL
      for (std::size_t j = 0; j < T; ++j) {
        TERRACE_UNROLL
        for (std::size_t p = 0; p < kParts; ++p) sum[k][j][p] = S::set(0.0F);
      }
    }
    const std::uint8_t* const base = w + row * row_stride / 2;
    const std::uint16_t* const base_scale = w_scale + row * row_stride / kQ4Group;
    const std::size_t distance = row_step * row_stride;
    const std::int8_t* xs[T];
    for (std::size_t j = 0; j < T; ++j) xs[j] = x[token + j].q;
    for (std::size_t i = 0; i < d; i += kRun) {
      if constexpr (S::kPrefetch > 0) {
        TERRACE_UNROLL
        for (std::size_t k = 0; k < R; ++k) __builtin_prefetch(base + (k * distance + i) / 2 + ahead);
      }
      typename Q4::X x_run[T];
      TERRACE_UNROLL
      for (std::size_t j = 0; j < T; ++j) x_run[j] = Q4::load_x(xs[j] + i);
      TERRACE_UNROLL
      for (std::size_t k = 0; k < R; ++k) {
        const auto w_run = Q4::load_w(base + (k * distance + i) / 2);
        F scale[kParts];
        Q4::scales(base_scale + (k * distance + i) / kQ4Group, scale);
        TERRACE_UNROLL
        for (std::size_t j = 0; j < T; ++j) {
          F products[kParts];
          Q4::lanes(w_run, x_run[j], products);
          TERRACE_UNROLL
          for (std::size_t p = 0; p < kParts; ++p) sum[k][j][p] = S::fma(products[p], scale[p], sum[k][j][p]);
        }
      }
    }
    TERRACE_UNROLL
    for (std::size_t k = 0; k < R; ++k) {
      TERRACE_UNROLL
      for (std::size_t j = 0; j < T; ++j) {
        y[(token + j) * y_stride + row + k * row_step] = S::fold(sum[k][j]) * x[token + j].scale;
      }
    }
  }
};

template <class S>
void dot_q4(const std::uint8_t* w, std::size_t row_stride, const std::uint16_t* w_scale, std::size_t n_rows,
            const QuantizedRow* x, std::size_t n_tokens, std::size_t d, float* y,
            std::size_t y_stride) noexcept {
  const std::size_t ahead = n_rows >= 2 * S::Q4::kStreams ? S::kPrefetch : 0;
  run_all(Q4Dot<S>{w, row_stride, w_scale, x, d, y, y_stride, ahead}, n_rows, n_tokens);
}

}  // namespace
}  // namespace terrace
