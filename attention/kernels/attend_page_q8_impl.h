// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "attention/kernels/attend_page_impl.h"
#include "attention/kernels/attention_kernels.h"
#include "attention/kernels/open_group_impl.h"
#include "attention/kernels/prefetch.h"
#include "attention/kernels/quantize_impl.h"
#include "engine/kernels/lanes.h"

// Body of attend_page_q8. Sums of products are integers, exact in any order; what comes before and after them
// is done in floats, lane by lane. Queries and weights have 14 bits, in two bytes each.
// Beyond engine/kernels/lanes.h an instruction set `S` says
//   S::Q8::kAccumulators         registers that a block of running sums may take
//   S::Q8::kRows                 query rows that share the loads of keys and values
//   S::Q8::Sum                   S::kWidth sums of int32
//   S::Q8::start(x_sum)          what add_key starts from; x_sum is the sum of all x that will be added
//   S::Q8::Keys load_keys(p)     S::kWidth quads of keys
//   S::Q8::add_key(sum, k, x)    lane l: sum + <quad l of k, the quad at x>; x in -127..127
//   S::Q8::zero(), load_values(p), add_value(sum, v, w)   likewise for values; w in 0..127
//   S::Q8::join(high, low)       floats high * kHighUnit + low, rounded once where it does not fit 24 bits

namespace terrace {
namespace {

constexpr std::size_t kQ8GroupBytes = kLanes * kQuad;
template <class S, std::size_t n_rows>
constexpr std::size_t kQ8Groups = [] {
  std::size_t groups = 8;
  while (groups > 1 && groups * n_rows * 2 * (kParts<S>) > S::Q8::kAccumulators) groups /= 2;
  return groups;
}();

/// Raw scores, sum of q * key times the key's scale, of G groups of slots.
template <class S, std::size_t R, std::size_t G>
inline void score_q8_groups(const std::int8_t* keys, std::size_t n_quads, const QuantizedQuery* q,
                            const float* key_scale, const Ahead& ahead, float* scores) noexcept {
  using Q8 = typename S::Q8;
  constexpr std::size_t n = G * kParts<S>;
  typename Q8::Sum high[R][n], low[R][n];
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) {
      high[r][i] = Q8::start(q[r].high_sum);
      low[r][i] = Q8::start(q[r].low_sum);
    }
  }
  const std::size_t group_bytes = n_quads * kQ8GroupBytes;
  for (std::size_t at = 0; at < n_quads; ++at) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) {
      const std::int8_t* p =
          keys + i / kParts<S> * group_bytes + at * kQ8GroupBytes + i % kParts<S> * S::kWidth * kQuad;
      if (i % kParts<S> == 0) prefetch<kQ8GroupBytes, kIntoSecondCache>(ahead.of(p));
      const typename Q8::Keys key = Q8::load_keys(p);
      TERRACE_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        high[r][i] = Q8::add_key(high[r][i], key, q[r].high + at * kQuad);
        low[r][i] = Q8::add_key(low[r][i], key, q[r].low + at * kQuad);
      }
    }
  }
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) {
      const auto scale = S::load(key_scale + i * S::kWidth);
      S::store(scores + r * kPageSlots + i * S::kWidth, S::mul(Q8::join(high[r][i], low[r][i]), scale));
    }
  }
}

template <class S, std::size_t R, std::size_t G = (kQ8Groups<S, R> < 2 ? 1 : 2)>
inline void score_q8_page(const PageTask& task, std::size_t row, Groups seen, const Ahead& ahead,
                          float* scores) noexcept {
  const auto* keys = static_cast<const std::int8_t*>(task.keys);
  const std::size_t n_quads = quads(task.d_k);
  const std::size_t full = task.n_slots / kLanes < seen.last ? task.n_slots / kLanes : seen.last;
  std::size_t group = seen.first;
  const auto score = [&]<std::size_t n>(std::integral_constant<std::size_t, n>) {
    score_q8_groups<S, R, n>(keys + group * n_quads * kQ8GroupBytes, n_quads, task.quantized_q + row,
                             task.key_scale + group * kLanes, ahead, scores + group * kLanes);
    group += n;
  };
  while (group + G <= full) score(std::integral_constant<std::size_t, G>{});
  while (group < full) score(std::integral_constant<std::size_t, 1>{});
  if (group == seen.last) return;
  score_q8_open_group<S, R>(keys + group * n_quads * kQ8GroupBytes, n_quads, task.n_slots % kLanes,
                            task.quantized_q + row, task.key_scale + group * kLanes, scores + group * kLanes);
}

/// Bytes of the values that are prefetched at every kLanes slots of each pass over the weights of a page, so
/// that memory is not idle meanwhile; the rest follows while values are read.
constexpr std::size_t kFetchedPerGroup = 128;
constexpr std::size_t kFetchedAtWeights = 2 * kFetchedPerGroup * kPageSlots / kLanes;

/// Turns a row's weights times the values' scales into integers, 0 outside its span; returns their unit.
template <class S>
inline float quantize_weights(const PageTask& task, PageSpan span, Groups seen, const Ahead& ahead,
                              float* weights, std::int8_t* high, std::int8_t* low) noexcept {
  using F = typename S::F;
  const std::size_t begin = span.begin / kLanes * kLanes;
  const std::size_t end = (span.end + kLanes - 1) / kLanes * kLanes;
  const std::size_t n_bytes = (seen.last - seen.first) * kLanes;
  std::memset(high + seen.first * kLanes, 0, n_bytes);
  std::memset(low + seen.first * kLanes, 0, n_bytes);
  F top[kParts<S>];
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) top[i] = S::set(0.0F);
  const auto* line = static_cast<const std::int8_t*>(task.values) + begin / kLanes * 2 * kFetchedPerGroup;
  const auto fetch_lines = [&] {
    prefetch<kFetchedPerGroup, kIntoSecondCache>(ahead.of(line));
    line += kFetchedPerGroup;
  };
  for (std::size_t s = begin; s < end; s += kLanes) {
    fetch_lines();
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      float* at = weights + s + i * S::kWidth;
      const F weight = S::load(at);
      // The scale of a slot outside the span may be anything; its weight is 0. A NaN shows in the row's sum.
      const F scaled = S::mul(weight, S::load(task.value_scale + s + i * S::kWidth));
      const F kept = S::if_less(S::set(0.0F), weight, scaled, S::set(0.0F));
      S::store(at, kept);
      top[i] = S::max(top[i], kept);
    }
  }
  const float unit = S::fold_max(top) / kWeightLargest;
  // Values that are almost zero add nothing; an infinite one turns the sum into 0 * infinity.
  if (!(unit > 1e-30F && unit < 1e30F)) return unit < 1.0F ? 0.0F : unit;
  const float inverse = 1.0F / unit;
  for (std::size_t s = begin; s < end; s += kLanes) {
    fetch_lines();
    F steps[kParts<S>];
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      steps[i] = round_lanes<S>(S::mul(S::load(weights + s + i * S::kWidth), S::set(inverse)));
    }
    store_split<S>(steps, kUnitHigh / 2 - 0.5F, high + s, low + s);
  }
  return unit;
}

/// sums[row][c] = unit[row] * sum over slots of w[row][slot] * values[slot][c], for G groups of columns.
template <class S, std::size_t R, std::size_t G>
inline void add_q8_values(const std::int8_t* values, std::size_t stride, std::size_t first_quad,
                          std::size_t last_quad, const std::int8_t* w_high, const std::int8_t* w_low,
                          const float* unit, const Ahead& ahead, float* sums,
                          std::size_t sum_stride) noexcept {
  using Q8 = typename S::Q8;
  constexpr std::size_t n = G * kParts<S>;
  typename Q8::Sum high[R][n], low[R][n];
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) high[r][i] = low[r][i] = Q8::zero();
  }
  for (std::size_t quad = first_quad; quad < last_quad; ++quad) {
    const std::int8_t* p = values + quad * stride;
    if (quad * stride >= kFetchedAtWeights) prefetch<G * kQ8GroupBytes, kIntoSecondCache>(ahead.of(p));
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) {
      const typename Q8::Values value = Q8::load_values(p + i * S::kWidth * kQuad);
      TERRACE_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        high[r][i] = Q8::add_value(high[r][i], value, w_high + r * kPageSlots + quad * kQuad);
        low[r][i] = Q8::add_value(low[r][i], value, w_low + r * kPageSlots + quad * kQuad);
      }
    }
  }
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) {
      S::store(sums + r * sum_stride + i * S::kWidth,
               S::mul(Q8::join(high[r][i], low[r][i]), S::set(unit[r])));
    }
  }
}

/// Rows [row, row + R) of the task.
template <class S, std::size_t R>
inline void attend_q8_rows(const PageTask& task, std::size_t row) noexcept {
  constexpr std::size_t kBlock = kQ8Groups<S, R>;
  const std::size_t width = padded_width(task.d_v);
  const std::size_t state_stride = state_floats(task.d_v);
  const Groups seen = groups_seen<R>(task.spans + row);
  const Ahead ahead(task, row, width, kBytesAhead);
  alignas(64) float scores[R * kPageSlots];
  alignas(64) std::int8_t high[R * kPageSlots];
  alignas(64) std::int8_t low[R * kPageSlots];
  float unit[R];
  score_q8_page<S, R>(task, row, seen, ahead, scores);
  float* states = task.states + row * state_stride;
  for (std::size_t r = 0; r < R; ++r) {
    float* of_row = scores + r * kPageSlots;
    weigh_row<S>(task, row + r, task.quantized_q[row + r].scale * task.scale, of_row,
                 states + r * state_stride);
    unit[r] = quantize_weights<S>(task, task.spans[row + r], seen, ahead, of_row, high + r * kPageSlots,
                                  low + r * kPageSlots);
  }
  const auto* values = static_cast<const std::int8_t*>(task.values);
  float* sums = states + kStateHeader;
  const std::size_t stride = width * kQuad;
  const std::size_t first = seen.first * (kLanes / kQuad), last = seen.last * (kLanes / kQuad);
  std::size_t c = 0;
  for (; c + kBlock * kLanes <= width; c += kBlock * kLanes) {
    add_q8_values<S, R, kBlock>(values + c * kQuad, stride, first, last, high, low, unit, ahead, sums + c,
                                state_stride);
  }
  for (; c < width; c += kLanes) {
    add_q8_values<S, R, 1>(values + c * kQuad, stride, first, last, high, low, unit, ahead, sums + c,
                           state_stride);
  }
}

template <class S>
void attend_page_q8(const PageTask& task) noexcept {
  constexpr std::size_t kRows = S::Q8::kRows;
  std::size_t row = 0;
  for (; row + kRows <= task.n_rows; row += kRows) attend_q8_rows<S, kRows>(task, row);
  for (; row < task.n_rows; ++row) attend_q8_rows<S, 1>(task, row);
}

}  // namespace
}  // namespace terrace
