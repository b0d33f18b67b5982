// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>

#include "attention/kernels/attend_page_impl.h"
#include "attention/kernels/attention_kernels.h"
#include "engine/kernels/lanes.h"

// Bodies of the kernels over plain rows: softmax states, linear attention.

namespace terrace {
namespace {

template <class S>
void exp_all(const float* x, std::size_t n, float* y) noexcept {
  std::size_t i = 0;
  for (; i + S::kWidth <= n; i += S::kWidth) S::store(y + i, exp_lanes<S>(S::load(x + i)));
  if (i == n) return;
  PartialGroup<float> tail(x + i, n - i);
  S::store(tail.lanes, exp_lanes<S>(S::load(tail.lanes)));
  std::memcpy(y + i, tail.lanes, (n - i) * sizeof(float));
}

template <class S>
void merge_states(float* state, const float* next, std::size_t d_v) noexcept {
  using F = typename S::F;
  const float maximum = next[0] > state[0] ? next[0] : state[0];
  // The same in every lane: a value from one lane would have to travel through memory.
  const F old_factor = exp_lanes<S>(S::set(state[0] - maximum));
  const F new_factor = exp_lanes<S>(S::set(next[0] - maximum));
  alignas(64) float sum[kLanes];
  S::store(sum, S::fma(S::set(state[1]), old_factor, S::mul(S::set(next[1]), new_factor)));
  state[0] = maximum;
  state[1] = sum[0];
  for (std::size_t i = kStateHeader; i < state_floats(d_v); i += S::kWidth) {
    const F added = S::mul(S::load(next + i), new_factor);
    S::store(state + i, S::fma(S::load(state + i), old_factor, added));
  }
}

template <class S>
void finish_state(const float* state, std::size_t d_v, float* y) noexcept {
  const float inverse = 1.0F / state[1];
  const float* const values = state + kStateHeader;
  std::size_t i = 0;
  for (; i + S::kWidth <= d_v; i += S::kWidth) S::store(y + i, S::mul(S::load(values + i), S::set(inverse)));
  for (; i < d_v; ++i) y[i] = values[i] * inverse;
}

template <class S>
float softmax_weights(float* x, std::size_t n) noexcept {
  using F = typename S::F;
  const std::size_t whole = n / kLanes * kLanes;
  PartialGroup<float> tail(x + whole, n - whole);
  for (std::size_t i = n - whole; i < kLanes; ++i) tail.lanes[i] = kMinusInfinity;
  F parts[kParts<S>];
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) parts[i] = S::load(tail.lanes + i * S::kWidth);
  for (std::size_t s = 0; s < whole; s += kLanes) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) parts[i] = S::max(parts[i], S::load(x + s + i * S::kWidth));
  }
  const F top = S::set(S::fold_max(parts));
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) parts[i] = S::set(0.0F);
  for (std::size_t s = 0; s < whole; s += kLanes) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      float* at = x + s + i * S::kWidth;
      const F weight = exp_lanes<S>(S::sub(S::load(at), top));
      S::store(at, weight);
      parts[i] = S::add(parts[i], weight);
    }
  }
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) {
    float* at = tail.lanes + i * S::kWidth;
    const F weight = exp_lanes<S>(S::sub(S::load(at), top));
    S::store(at, weight);
    parts[i] = S::add(parts[i], weight);
  }
  std::memcpy(x + whole, tail.lanes, (n - whole) * sizeof(float));
  return S::fold(parts);
}

template <class S>
void linear_attention(const float* key, const float* value, const float* query, std::size_t m, std::size_t d,
                      float* sums, float* y) noexcept {
  using F = typename S::F;
  constexpr std::size_t parts = kParts<S>;
  for (std::size_t at = 0; at < d; at += kLanes) {
    F v[parts], out[parts];
    TERRACE_UNROLL
    for (std::size_t i = 0; i < parts; ++i) {
      v[i] = key ? S::load(value + at + i * S::kWidth) : S::set(0.0F);
      out[i] = S::set(0.0F);
    }
    for (std::size_t r = 0; r < m; ++r) {
      float* row = sums + r * d + at;
      TERRACE_UNROLL
      for (std::size_t i = 0; i < parts; ++i) {
        F sum = S::load(row + i * S::kWidth);
        if (key) {
          sum = S::fma(S::set(key[r]), v[i], sum);
          S::store(row + i * S::kWidth, sum);
        }
        if (query) out[i] = S::fma(S::set(query[r]), sum, out[i]);
      }
    }
    if (!query) continue;
    TERRACE_UNROLL
    for (std::size_t i = 0; i < parts; ++i) S::store(y + at + i * S::kWidth, out[i]);
  }
}

}  // namespace
}  // namespace terrace
