// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/kernels/dense_elementwise.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/kernels/lanes.h"

// Kernels that reduce an activation row: norms and quantisation. Beyond lanes.h an instruction set says
//   S::store_i8(q, parts)   kLanes floats that hold integers in -127..127, as int8
//   S::Q8                   as for dense_quantized_dot.h; here it adds up int8 values

namespace terrace {
namespace {

/// lanes[l] = f(... f(f(0, x[l]), x[l + kLanes]) ...), with zeros up to a whole group.
template <class S, class F>
inline void reduce(const float* x, std::size_t n, F f, typename S::F (&lanes)[kParts<S>]) noexcept {
  const auto add_group = [&](const float* group) {
    TERRACE_UNROLL
    for (std::size_t p = 0; p < kParts<S>; ++p) lanes[p] = f(lanes[p], S::load(group + p * S::kWidth));
  };
  TERRACE_UNROLL
  for (std::size_t p = 0; p < kParts<S>; ++p) lanes[p] = S::set(0.0F);
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) add_group(x + i);
  if (i < n) add_group(PartialGroup<float>(x + i, n - i).lanes);
}

template <class S>
void norm(const float* x, std::size_t d, const float* scale, const float* bias, bool center, float eps,
          float* y) noexcept {
  using F = typename S::F;
  const auto n = static_cast<float>(d);
  F lanes[kParts<S>];
  const float* normed = x;
  if (center) {
    reduce<S>(
        x, d, [](F sum, F v) { return S::add(sum, v); }, lanes);
    const F mean = S::set(S::fold(lanes) / n);
    map<S>([mean](F v) { return S::sub(v, mean); }, y, d, x);
    normed = y;
  }
  reduce<S>(
      normed, d, [](F sum, F v) { return S::fma(v, v, sum); }, lanes);
  const F inverse = S::set(1.0F / std::sqrt(S::fold(lanes) / n + eps));
  if (center && bias) {
    map<S>([inverse](F v, F s, F b) { return S::fma(S::mul(v, inverse), s, b); }, y, d, normed, scale, bias);
  } else {
    map<S>([inverse](F v, F s) { return S::mul(S::mul(v, inverse), s); }, y, d, normed, scale);
  }
}

/// Sum of n int8 values, n a multiple of 64: their dot product with ones.
template <class S>
inline std::int32_t sum_i8(const std::int8_t* q, std::size_t n) noexcept {
  using Q8 = typename S::Q8;
  std::int8_t ones[Q8::kBytes];
  std::memset(ones, 1, sizeof ones);
  const typename Q8::X x = Q8::load_x(ones);
  typename Q8::Sum sum = Q8::zero();
  for (std::size_t i = 0; i < n; i += Q8::kBytes) sum = Q8::add(sum, Q8::load_w(q + i), x);
  return Q8::total(sum, static_cast<std::int32_t>(n));
}

template <class S>
QuantizedRow quantize(const float* x, std::size_t d, std::int8_t* q) noexcept {
  using F = typename S::F;
  constexpr float kLargest = 127.0F;
  const std::size_t padded = (d + 63) / 64 * 64;
  F lanes[kParts<S>];
  reduce<S>(
      x, d, [](F max, F v) { return S::max(S::abs(v), max); }, lanes);  // a NaN is not greater than anything
  alignas(64) float maxima[kLanes];
  for (std::size_t p = 0; p < kParts<S>; ++p) S::store(maxima + p * S::kWidth, lanes[p]);
  float max = 0.0F;
  for (const float m : maxima) max = m > max ? m : max;
  const float scale = max / kLargest;
  std::memset(q, 0, padded);
  if (!(scale > 0.0F)) return {q, scale, 0};

  const auto group = [&](const float* from, std::int8_t* to) {
    F rounded[kParts<S>];
    TERRACE_UNROLL
    for (std::size_t p = 0; p < kParts<S>; ++p) {
      const F scaled = S::div(S::load(from + p * S::kWidth), S::set(scale));
      // At most 127, but for a denormal scale, which is coarse, and 0 / 0 or inf / inf, which become 0.
      const F bounded = S::max(S::min(scaled, S::set(kLargest)), S::set(-kLargest));
      const F clamped = S::if_less(S::abs(scaled), S::set(1e30F), bounded, S::set(0.0F));
      // Adding 1.5 * 2^23 leaves no bits for a fraction: rounds to nearest, ties to even.
      rounded[p] = S::sub(S::add(clamped, S::set(12582912.0F)), S::set(12582912.0F));
    }
    S::store_i8(to, rounded);
  };
  std::size_t i = 0;
  for (; i + kLanes <= d; i += kLanes) group(x + i, q + i);
  if (i < d) {
    std::int8_t tail[kLanes];
    group(PartialGroup<float>(x + i, d - i).lanes, tail);
    std::memcpy(q + i, tail, d - i);
  }
  return {q, scale, sum_i8<S>(q, padded)};
}

}  // namespace
}  // namespace terrace
