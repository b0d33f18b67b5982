// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/kernels/lanes.h"

// Elementwise kernels. An element gets the same bits in every lane, so tails go through a padded group.

namespace terrace {
namespace {

/// out[i] = f(in[i]...), i < n; out may be one of the inputs.
template <class S, class F, class... In>
inline void map(F f, float* out, std::size_t n, const In*... in) noexcept {
  std::size_t i = 0;
  for (; i + S::kWidth <= n; i += S::kWidth) S::store(out + i, f(S::load(in + i)...));
  if (i == n) return;
  alignas(64) float result[kLanes];
  [&](const auto&... group) {
    for (std::size_t p = 0; p < kLanes; p += S::kWidth) S::store(result + p, f(S::load(group.lanes + p)...));
  }(PartialGroup<In>(in + i, n - i)...);
  std::memcpy(out + i, result, (n - i) * sizeof(float));
}

template <class S>
void widen_bf16(const std::uint16_t* w, std::size_t d, float* y) noexcept {
  map<S>([](auto v) { return v; }, y, d, w);
}

template <class S>
void multiply_bf16(const float* x, const std::uint16_t* w, float* y, std::size_t d) noexcept {
  map<S>([](auto a, auto b) { return S::mul(a, b); }, y, d, x, w);
}

template <class S>
void multiply(float* x, const float* y, std::size_t n) noexcept {
  map<S>([](auto a, auto b) { return S::mul(a, b); }, x, n, x, y);
}

template <class S>
void multiply_to(const float* a, const float* b, float* y, std::size_t n) noexcept {
  map<S>([](auto va, auto vb) { return S::mul(va, vb); }, y, n, a, b);
}

template <class S>
void add(float* x, const float* y, std::size_t n) noexcept {
  map<S>([](auto a, auto b) { return S::add(a, b); }, x, n, x, y);
}

template <class S>
void relu(float* x, std::size_t n) noexcept {
  map<S>([](auto v) { return S::if_less(v, S::set(0.0F), S::set(0.0F), v); }, x, n, x);
}

/// 1 + exp(-x), at most 1 + e^87: nothing overflows, and NaN stays NaN.
template <class S>
inline typename S::F one_plus_exp_minus(typename S::F x) noexcept {
  const auto bound = S::set(87.0F);
  const auto minus_x = S::sub(S::set(0.0F), x);
  return S::add(S::set(1.0F), exp_lanes<S>(S::if_less(bound, minus_x, bound, minus_x)));
}

template <class S>
void sigmoid(float* x, std::size_t n) noexcept {
  map<S>([](auto v) { return S::div(S::set(1.0F), one_plus_exp_minus<S>(v)); }, x, n, x);
}

template <class S>
void silu(float* x, std::size_t n) noexcept {
  map<S>([](auto v) { return S::div(v, one_plus_exp_minus<S>(v)); }, x, n, x);
}

/// x/2 (1 + tanh u) = x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
template <class S>
void fast_gelu(float* x, std::size_t n) noexcept {
  map<S>(
      [](auto v) {
        const auto square = S::mul(v, v);
        const auto twice_u = S::mul(v, S::fma(square, S::set(0.0713548163F), S::set(1.59576912F)));
        return S::div(v, one_plus_exp_minus<S>(twice_u));
      },
      x, n, x);
}

/// x/2 (1 + erf(x / sqrt 2)) = max(x, 0) - |x|/2 erfc(t), t = |x| / sqrt 2, which has no cancellation.
/// log erfc(t) = t p(t) with the minimax polynomial of degree 8 for erfc on [0, 9.5] (error 6.5e-8 in f32;
/// fitted by reweighted least squares); beyond, erfc is below the smallest normal number.
template <class S>
inline typename S::F gelu_lanes(typename S::F x) noexcept {
  const auto bound = S::set(9.5F);
  const auto magnitude = S::abs(x);
  auto t = S::mul(magnitude, S::set(0.707106781F));
  t = S::if_less(bound, t, bound, t);
  auto p = S::set(1.4145355e-06F);
  p = S::fma(p, t, S::set(-3.256683e-05F));
  p = S::fma(p, t, S::set(0.00026842917F));
  p = S::fma(p, t, S::set(-0.00086720864F));
  p = S::fma(p, t, S::set(-0.00081189786F));
  p = S::fma(p, t, S::set(0.019811094F));
  p = S::fma(p, t, S::set(-0.10301313F));
  p = S::fma(p, t, S::set(-0.6365806F));
  p = S::fma(p, t, S::set(-1.1283813F));
  const auto erfc = exp_lanes<S>(S::mul(p, t));
  const auto positive = S::if_less(x, S::set(0.0F), S::set(0.0F), x);
  return S::fma(S::mul(magnitude, S::set(-0.5F)), erfc, positive);
}

template <class S>
void gelu(float* x, std::size_t n) noexcept {
  map<S>([](auto v) { return gelu_lanes<S>(v); }, x, n, x);
}

}  // namespace
}  // namespace terrace
