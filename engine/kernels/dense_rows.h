// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/kernels/dense_elementwise.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/kernels/lanes.h"

// Kernels that reduce an activation row: norms and quantisation. Beyond lanes.h an instruction set says
//   S::store_i8(q, parts)   kLanes floats in -127.5..127.5 as int8, rounded to nearest, ties to even
//   S::kNanStoresZero       whether that of a NaN is 0
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
float largest_magnitude(const float* x, std::size_t d) noexcept {
  using F = typename S::F;
  constexpr std::size_t kChains = 4;  // a chain of maxima waits for itself
  F lanes[kChains][kParts<S>];
  for (auto& chain : lanes) {
    for (F& lane : chain) lane = S::set(0.0F);
  }
  std::size_t i = 0;
  for (; i + kChains * kLanes <= d; i += kChains * kLanes) {
    TERRACE_UNROLL
    for (std::size_t c = 0; c < kChains; ++c) {
      TERRACE_UNROLL
      for (std::size_t p = 0; p < kParts<S>; ++p) {
        const F v = S::load(x + i + c * kLanes + p * S::kWidth);
        lanes[c][p] = S::max(S::abs(v), lanes[c][p]);  // a NaN is not greater than anything
      }
    }
  }
  F rest[kParts<S>];
  reduce<S>(
      x + i, d - i, [](F max, F v) { return S::max(S::abs(v), max); }, rest);
  TERRACE_UNROLL
  for (std::size_t p = 0; p < kParts<S>; ++p) {
    rest[p] = S::max(rest[p], S::max(S::max(lanes[0][p], lanes[1][p]), S::max(lanes[2][p], lanes[3][p])));
  }
  return S::fold_max(rest);
}

/// q = x / scale rounded to int8, by way of 1 / scale.
template <class S>
inline void quantize_values(const float* x, std::size_t n, float scale, std::int8_t* q) noexcept {
  using F = typename S::F;
  const F inverse = S::set(1.0F / scale);
  const auto for_groups = [&](auto value) {
    const auto group = [&](const float* from, std::int8_t* to) {
      F scaled[kParts<S>];
      TERRACE_UNROLL
      for (std::size_t p = 0; p < kParts<S>; ++p) {
        scaled[p] = value(S::mul(S::load(from + p * S::kWidth), inverse));
      }
      S::store_i8(to, scaled);
    };
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) group(x + i, q + i);
    if (i == n) return;
    std::int8_t tail[kLanes];
    group(PartialGroup<float>(x + i, n - i).lanes, tail);
    std::memcpy(q + i, tail, n - i);
  };
  const bool all_bounded = scale > 1e-30F && scale < 1e30F;  // but NaN, which no maximum shows
  if (all_bounded) {
    return for_groups(
        [](F v) { return S::kNanStoresZero ? v : S::if_less(S::abs(v), S::set(128.0F), v, S::set(0.0F)); });
  }
  for_groups([](F v) {
    const F bounded = S::max(S::min(v, S::set(127.0F)), S::set(-127.0F));
    return S::if_less(S::abs(v), S::set(1e30F), bounded, S::set(0.0F));
  });
}

template <class S>
std::int32_t quantize_by(const float* x, std::size_t d, float scale, std::int8_t* q) noexcept {
  const std::size_t padded = (d + 63) / 64 * 64;
  if (!(scale > 0.0F)) {
    std::memset(q, 0, padded);
    return 0;
  }
  std::memset(q + d, 0, padded - d);
  quantize_values<S>(x, d, scale, q);
  return sum_i8<S>(q, padded);
}

}  // namespace
}  // namespace terrace
