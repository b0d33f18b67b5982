// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>

#include "attention/kernels/attention_kernels.h"
#include "attention/kernels/open_group_impl.h"
#include "attention/kernels/prefetch.h"
#include "engine/kernels/lanes.h"

// Body of attend_page: scores of up to four query rows at a time, softmax weights of each row, weighted sum
// of values. A score is one chain of multiply-adds over d, an output element one chain over slots: how rows
// are grouped and which lanes a slot falls into changes nothing.
// Beyond engine/kernels/lanes.h an instruction set `S` says
//   S::kAccumulators   registers that a block of running sums may take

namespace terrace {
namespace {

/// Query rows that share the loads of keys and values.
constexpr std::size_t kRowTile = 4;
/// How far ahead of the multiply-adds keys and values are prefetched, into the nearest cache.
/// bench_attention, multi_head/f32/8192, two cores of an Emerald Rapids: 84 % of the read bandwidth with 1
/// KB, 91 % with 2, 83 % with 4 and 8 in one run; runs of the same build differ by more. (q8 and q4:
/// prefetch.h.)
constexpr std::size_t kPrefetchBytes = 2048;
constexpr float kMinusInfinity = -__builtin_inff();

/// Groups of kLanes slots or columns that a block of `n_rows` rows handles at a time: as many as the
/// registers hold, at most a key tile.
template <class S, std::size_t n_rows>
constexpr std::size_t kGroups = [] {
  std::size_t groups = kKeyTile / kLanes;
  while (groups > 1 && groups * n_rows * (kParts<S>) > S::kAccumulators) groups /= 2;
  return groups;
}();

/// Groups of kLanes slots [first, last) that any of R rows sees.
struct Groups {
  std::size_t first, last;
};
template <std::size_t R>
inline Groups groups_seen(const PageSpan* spans) noexcept {
  std::size_t begin = kPageSlots, end = 0;
  for (std::size_t r = 0; r < R; ++r) {
    begin = spans[r].begin < begin ? spans[r].begin : begin;
    end = spans[r].end > end ? spans[r].end : end;
  }
  return {begin / kLanes, (end + kLanes - 1) / kLanes};
}

/// scores[row * kPageSlots + slot] = <q_row, key_slot> for G groups of slots of one tile.
template <class S, class T, std::size_t R, std::size_t G>
inline void score_groups(const T* keys, std::size_t d_k, const float* const* q, const Ahead& ahead,
                         float* scores) noexcept {
  using F = typename S::F;
  constexpr std::size_t n = G * kParts<S>;
  F sum[R][n];
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) sum[r][i] = S::set(0.0F);
  }
  for (std::size_t d = 0; d < d_k; ++d) {
    const T* row = keys + d * kKeyTile;
    prefetch<G * kLanes * sizeof(T)>(ahead.of(row));
    F key[n];
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) key[i] = S::load(row + i * S::kWidth);
    TERRACE_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      const F x = S::set(q[r][d]);
      TERRACE_UNROLL
      for (std::size_t i = 0; i < n; ++i) sum[r][i] = S::fma(x, key[i], sum[r][i]);
    }
  }
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) S::store(scores + r * kPageSlots + i * S::kWidth, sum[r][i]);
  }
}

/// Scores of the groups `seen` of a page.
template <class S, class T, std::size_t R, std::size_t G = kGroups<S, R>>
inline void score_page(const PageTask& task, std::size_t row, Groups seen, const Ahead& ahead,
                       float* scores) noexcept {
  constexpr std::size_t groups_per_tile = kKeyTile / kLanes;
  const T* const keys = static_cast<const T*>(task.keys);
  const float* const* const q = task.q + row;
  const std::size_t full = task.n_slots / kLanes < seen.last ? task.n_slots / kLanes : seen.last;
  std::size_t group = seen.first;
  while (group < full) {
    const std::size_t in_tile = group % groups_per_tile;
    const T* tile = keys + key_index(group * kLanes, 0, task.d_k);
    if (in_tile % G == 0 && group + G <= full) {
      score_groups<S, T, R, G>(tile, task.d_k, q, ahead, scores + group * kLanes);
      group += G;
    } else {
      score_groups<S, T, R, 1>(tile, task.d_k, q, ahead, scores + group * kLanes);
      ++group;
    }
  }
  if (group == seen.last) return;
  score_open_group<S, T, R>(keys + key_index(group * kLanes, 0, task.d_k), task.d_k, task.n_slots % kLanes, q,
                            ahead, scores + group * kLanes);
}

/// Adds the penalties of `task` to one group of scores of query row `row`.
template <class S>
inline typename S::F penalise(const PageTask& task, std::size_t row, std::size_t slot,
                              typename S::F score) noexcept {
  using F = typename S::F;
  const F key = S::load(task.key_position + slot);
  const F query = S::set(task.query_position[row]);
  score = S::if_less(query, key, S::sub(score, S::set(task.future_penalty)), score);
  score = S::if_equal(query, key, S::sub(score, S::set(task.self_penalty)), score);
  return S::if_less(key, S::set(0.0F), S::sub(score, S::set(task.pad_penalty)), score);
}

/// Scores of the slots from `slot` on, minus infinity outside [begin, end): there they may be anything, even
/// NaN from a sequence that was cut off. Lane by lane, because a load of what narrower stores wrote would
/// wait until they have left for the cache.
template <class S>
inline typename S::F seen_only(std::size_t slot, std::size_t begin, std::size_t end,
                               typename S::F score) noexcept {
  alignas(64) static constexpr float kLane[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const auto here = S::add(S::set(static_cast<float>(slot)), S::load(kLane));
  const auto unseen = S::set(kMinusInfinity);
  const auto before_end = S::if_less(here, S::set(static_cast<float>(end)), score, unseen);
  return S::if_less(here, S::set(static_cast<float>(begin)), unseen, before_end);
}

/// Turns raw scores of a row, times `by`, into weights exp(score - maximum), in place, and stores maximum and
/// sum in `state`.
template <class S>
inline void weigh_row(const PageTask& task, std::size_t row, float by, float* scores, float* state) noexcept {
  using F = typename S::F;
  const std::size_t begin = task.spans[row].begin;
  const std::size_t end = task.spans[row].end;
  const std::size_t first = begin / kLanes * kLanes;
  const std::size_t last = (end + kLanes - 1) / kLanes * kLanes;
  const F scale = S::set(by);
  for (std::size_t s = first; s < last; s += S::kWidth) {
    F score = S::mul(S::load(scores + s), scale);
    if (task.key_position) score = penalise<S>(task, row, s, score);
    if (s < begin || s + S::kWidth > end) score = seen_only<S>(s, begin, end, score);
    S::store(scores + s, score);
  }

  F parts[kParts<S>];
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) parts[i] = S::load(scores + first + i * S::kWidth);
  for (std::size_t s = first + kLanes; s < last; s += kLanes) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      parts[i] = S::max(parts[i], S::load(scores + s + i * S::kWidth));
    }
  }
  const float maximum = S::fold_max(parts);
  const F top = S::set(maximum);
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) parts[i] = S::set(0.0F);
  for (std::size_t s = first; s < last; s += kLanes) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      float* at = scores + s + i * S::kWidth;
      const F weight = exp_lanes<S>(S::sub(S::load(at), top));
      S::store(at, weight);
      parts[i] = S::add(parts[i], weight);
    }
  }
  state[0] = maximum;
  state[1] = S::fold(parts);
}

/// sums[row][c] += weights[row][slot] * values[slot][c] for slots [begin, end), in order, and G groups of
/// columns.
template <class S, class T, std::size_t R, std::size_t G>
inline void add_value_groups(const T* values, std::size_t stride, std::size_t begin, std::size_t end,
                             const float* weights, const Ahead& ahead, float* sums,
                             std::size_t sum_stride) noexcept {
  using F = typename S::F;
  constexpr std::size_t n = G * kParts<S>;
  F sum[R][n];
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) sum[r][i] = S::load(sums + r * sum_stride + i * S::kWidth);
  }
  for (std::size_t s = begin; s < end; ++s) {
    const T* row = values + s * stride;
    prefetch<G * kLanes * sizeof(T)>(ahead.of(row));
    F value[n];
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) value[i] = S::load(row + i * S::kWidth);
    TERRACE_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      const F weight = S::set(weights[r * kPageSlots + s]);
      TERRACE_UNROLL
      for (std::size_t i = 0; i < n; ++i) sum[r][i] = S::fma(weight, value[i], sum[r][i]);
    }
  }
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) S::store(sums + r * sum_stride + i * S::kWidth, sum[r][i]);
  }
}

/// The same for all `width` columns, a multiple of kLanes.
template <class S, class T, std::size_t R, std::size_t G = kGroups<S, R>>
inline void add_values(const T* values, std::size_t width, std::size_t begin, std::size_t end,
                       const float* weights, const Ahead& ahead, float* sums,
                       std::size_t sum_stride) noexcept {
  if (begin >= end) return;
  std::size_t c = 0;
  for (; c + G * kLanes <= width; c += G * kLanes) {
    add_value_groups<S, T, R, G>(values + c, width, begin, end, weights, ahead, sums + c, sum_stride);
  }
  for (; c < width; c += kLanes) {
    add_value_groups<S, T, R, 1>(values + c, width, begin, end, weights, ahead, sums + c, sum_stride);
  }
}

/// Rows [row, row + R) of the task.
template <class S, class T, std::size_t R>
inline void attend_rows(const PageTask& task, std::size_t row) noexcept {
  const std::size_t width = padded_width(task.d_v);
  const std::size_t stride = state_floats(task.d_v);
  std::size_t joint_begin = 0, joint_end = kPageSlots;
  for (std::size_t r = 0; r < R; ++r) {
    const PageSpan span = task.spans[row + r];
    joint_begin = span.begin > joint_begin ? span.begin : joint_begin;
    joint_end = span.end < joint_end ? span.end : joint_end;
  }
  const Groups seen = groups_seen<R>(task.spans + row);
  const Ahead ahead(task, row, width * sizeof(T), kPrefetchBytes);
  alignas(64) float scores[R * kPageSlots];
  score_page<S, T, R>(task, row, seen, ahead, scores);
  float* states = task.states + row * stride;
  for (std::size_t r = 0; r < R; ++r) {
    weigh_row<S>(task, row + r, task.scale, scores + r * kPageSlots, states + r * stride);
    std::memset(states + r * stride + kStateHeader, 0, width * sizeof(float));
  }
  const T* values = static_cast<const T*>(task.values);
  float* sums = states + kStateHeader;
  if (joint_begin >= joint_end) joint_begin = joint_end = kPageSlots;  // no slot that all rows see
  // A slot outside a row's own span must not touch it: even 0 * value could turn -0 into 0 or hit an
  // infinity.
  for (std::size_t r = 0; r < R; ++r) {
    const PageSpan span = task.spans[row + r];
    add_values<S, T, 1>(values, width, span.begin, span.end < joint_begin ? span.end : joint_begin,
                        scores + r * kPageSlots, ahead, sums + r * stride, stride);
  }
  add_values<S, T, R>(values, width, joint_begin, joint_end, scores, ahead, sums, stride);
  for (std::size_t r = 0; r < R; ++r) {
    add_values<S, T, 1>(values, width, joint_end, task.spans[row + r].end, scores + r * kPageSlots, ahead,
                        sums + r * stride, stride);
  }
}

template <class S, class T>
void attend_page(const PageTask& task) noexcept {
  std::size_t row = 0;
  for (; row + kRowTile <= task.n_rows; row += kRowTile) attend_rows<S, T, kRowTile>(task, row);
  switch (task.n_rows - row) {
    case 3:
      return attend_rows<S, T, 3>(task, row);
    case 2:
      return attend_rows<S, T, 2>(task, row);
    case 1:
      return attend_rows<S, T, 1>(task, row);
    default:
      return;
  }
}

}  // namespace
}  // namespace terrace
