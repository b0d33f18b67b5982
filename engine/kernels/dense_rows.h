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
//   S::kNanStoresZero       whether a NaN, converted to an integer, is stored as 0
//   S::Q8                   as for dense_q8_dot.h; here it adds up int8 values

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

/// Sum of n int8 values: their dot product with ones.
template <class S>
inline std::int32_t sum_i8(const std::int8_t* q, std::size_t n) noexcept {
  using Q8 = typename S::Q8;
  std::int8_t ones[Q8::kBytes];
  std::memset(ones, 1, sizeof ones);
  const typename Q8::X x = Q8::load_x(ones);
  typename Q8::Sum sum = Q8::zero();
  std::size_t i = 0;
  for (; i + Q8::kBytes <= n; i += Q8::kBytes) sum = Q8::add(sum, Q8::load_w(q + i), x);
  if (i < n) sum = Q8::add(sum, Q8::load_part_w(q + i, n - i), Q8::load_part_x(ones, n - i));
  return Q8::total(sum, static_cast<std::int32_t>(n));
}

/// Largest magnitude of d values; group(i, n, out) gives n of them from i on, then zeros up to a whole group.
/// A NaN is not greater than anything.
template <class S, class Group>
inline float largest_of(std::size_t d, Group group) noexcept {
  using F = typename S::F;
  constexpr std::size_t kChains = 4;  // a chain of maxima waits for itself
  F lanes[kChains][kParts<S>];
  for (auto& chain : lanes) {
    for (F& lane : chain) lane = S::set(0.0F);
  }
  const auto take = [&](std::size_t i, std::size_t n, F(&chain)[kParts<S>]) {
    F values[kParts<S>];
    group(i, n, values);
    TERRACE_UNROLL
    for (std::size_t p = 0; p < kParts<S>; ++p) chain[p] = S::max(S::abs(values[p]), chain[p]);
  };
  std::size_t i = 0;
  for (; i + kChains * kLanes <= d; i += kChains * kLanes) {
    TERRACE_UNROLL
    for (std::size_t c = 0; c < kChains; ++c) take(i + c * kLanes, kLanes, lanes[c]);
  }
  for (; i + kLanes <= d; i += kLanes) take(i, kLanes, lanes[0]);
  if (i < d) take(i, d - i, lanes[1]);
  TERRACE_UNROLL
  for (std::size_t p = 0; p < kParts<S>; ++p) {
    lanes[0][p] = S::max(S::max(lanes[0][p], lanes[1][p]), S::max(lanes[2][p], lanes[3][p]));
  }
  return S::fold_max(lanes[0]);
}

template <class S>
float largest_magnitude(const float* x, std::size_t d) noexcept {
  return largest_of<S>(d, [x](std::size_t i, std::size_t n, typename S::F* out) {
    const auto load = [out](const float* from) {
      TERRACE_UNROLL
      for (std::size_t p = 0; p < kParts<S>; ++p) out[p] = S::load(from + p * S::kWidth);
    };
    n == kLanes ? load(x + i) : load(PartialGroup<float>(x + i, n).lanes);
  });
}

template <class S>
float multiply_q8(const float* x, const std::int8_t* w, float scale, float* y, std::size_t d) noexcept {
  const auto factor = S::set(scale);
  return largest_of<S>(d, [=](std::size_t i, std::size_t n, typename S::F* out) {
    const auto multiply = [out, factor](const float* a, const std::int8_t* b, float* to) {
      TERRACE_UNROLL
      for (std::size_t p = 0; p < kParts<S>; ++p) {
        out[p] = S::mul(S::load(a + p * S::kWidth), S::mul(factor, S::load(b + p * S::kWidth)));
        S::store(to + p * S::kWidth, out[p]);
      }
    };
    if (n == kLanes) return multiply(x + i, w + i, y + i);
    alignas(64) float product[kLanes];
    multiply(PartialGroup<float>(x + i, n).lanes, PartialGroup<std::int8_t>(w + i, n).lanes, product);
    std::memcpy(y + i, product, n * sizeof(float));
  });
}

/// q = x * inverse rounded to int8, where `inverse` is 1 / scale; see quantize_runs().
template <class S, class Value>
inline void quantize_run(const float* x, std::size_t n, float inverse, Value value, std::int8_t* q) noexcept {
  const auto group = [&](const float* from, std::int8_t* to) {
    typename S::Ints steps[kParts<S>];
    TERRACE_UNROLL
    for (std::size_t p = 0; p < kParts<S>; ++p) {
      steps[p] = S::to_ints(value(S::mul(S::load(from + p * S::kWidth), S::set(inverse))));
    }
    S::store_i8(to, steps);
  };
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) group(x + i, q + i);
  if (i == n) return;
  std::int8_t tail[kLanes];
  group(PartialGroup<float>(x + i, n - i).lanes, tail);
  std::memcpy(q + i, tail, n - i);
}

template <class S>
void quantize_runs(const float* x, std::size_t n_runs, std::size_t run, float scale, std::int8_t* q,
                   std::size_t stride, std::int32_t* sums) noexcept {
  using F = typename S::F;
  if (!(scale > 0.0F)) {
    for (std::size_t r = 0; r < n_runs; ++r) std::memset(q + r * stride, 0, run);
    return;
  }
  const float inverse = 1.0F / scale;
  const auto for_runs = [&](auto value) {
    for (std::size_t r = 0; r < n_runs; ++r) {
      quantize_run<S>(x + r * run, run, inverse, value, q + r * stride);
    }
  };
  const bool all_bounded = scale > 1e-30F && scale < 1e30F;  // except NaN, which no maximum shows
  if (all_bounded) {
    for_runs(
        [](F v) { return S::kNanStoresZero ? v : S::if_less(S::abs(v), S::set(128.0F), v, S::set(0.0F)); });
  } else {
    for_runs([](F v) {
      const F bounded = S::max(S::min(v, S::set(127.0F)), S::set(-127.0F));
      return S::if_less(S::abs(v), S::set(1e30F), bounded, S::set(0.0F));
    });
  }
  // After the last run: a load that needs several stores waits until all of them have left for the cache.
  for (std::size_t r = 0; r < n_runs; ++r) sums[r] += sum_i8<S>(q + r * stride, run);
}

}  // namespace
}  // namespace terrace
