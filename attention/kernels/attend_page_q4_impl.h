// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "attention/kernels/attend_page_impl.h"
#include "attention/kernels/attention_kernels.h"
#include "attention/kernels/prefetch.h"
#include "attention/kernels/quantize_impl.h"
#include "engine/kernels/lanes.h"

// Body of attend_page_q4. A nibble holds a step plus kQ4Zero, and is multiplied as it is: sums of products
// start from -kQ4Zero times the sum of the other factors. Scales change every kQ4Group channels, so integer
// sums of a score end there and continue as one chain of floats over the groups, and the weights of values
// are made once per group. Sums of a group fit 24 bits and are exact as floats.
// Beyond engine/kernels/lanes.h an instruction set `S` says
//   S::Q8::kAccumulators, kRows, Sum         as for attend_page_q8_impl.h
//   S::Q4::Nibbles                           S::kWidth quads of nibbles, one to a byte
//   S::Q4::load(p, low, high)                quads of the low and of the high nibbles of the bytes at p
//   S::Q4::set(x)                            x in every lane
//   S::Q4::plus(a, b), to_floats(sum)        lane by lane
//   S::Q4::add(sum, n, x)                    lane l: sum + <quad l of n, the quad at x>; x in -127..127

namespace terrace {
namespace {

/// Bytes that kLanes lanes take of a run.
constexpr std::size_t kQ4RowBytes = kLanes * kQuad;

/// Groups of slots that are scored at a time, with a sum and a score each.
template <class S, std::size_t n_rows>
constexpr std::size_t kQ4Groups = [] {
  std::size_t groups = 4;
  while (groups > 1 && groups * n_rows * 2 * (kParts<S>) > S::Q8::kAccumulators) groups /= 2;
  return groups;
}();

/// score[row][i] += products of the channels of one group, for G groups of slots `distance` bytes apart:
/// octets at `keys`, scales at `scales`. `fetch` is told of every line of the octets.
template <class S, std::size_t R, std::size_t G, class Fetch>
inline void add_q4_scores(const std::uint8_t* keys, const std::uint8_t* scales, std::size_t distance,
                          std::size_t n_octets, const QuantizedQuery* q, std::size_t group,
                          typename S::F (&score)[R][G * kParts<S>], Fetch&& fetch) noexcept {
  using Q4 = typename S::Q4;
  constexpr std::size_t n = G * kParts<S>;
  typename S::Q8::Sum sum[R][n];
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) sum[r][i] = Q4::set(-kQ4Zero * q[r].group_sums[group]);
  }
  for (std::size_t at = 0; at < n_octets; ++at) {
    const std::size_t channel = group * kQ4Group + at * kOctet;
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint8_t* p =
          keys + i / kParts<S> * distance + at * kQ4RowBytes + i % kParts<S> * S::kWidth * kQuad;
      if (i % kParts<S> == 0) fetch(p);
      typename Q4::Nibbles quad[2];
      Q4::load(p, &quad[0], &quad[1]);
      TERRACE_UNROLL
      for (std::size_t half = 0; half < 2; ++half) {
        TERRACE_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          sum[r][i] = Q4::add(sum[r][i], quad[half], q[r].high + channel + half * kQuad);
        }
      }
    }
  }
  TERRACE_UNROLL
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint8_t* const of_group = scales + i / kParts<S> * distance;
    if (i % kParts<S> == 0 && group % 2 == 0) fetch(of_group);  // a line holds the scales of two groups
    const auto* of_slots = reinterpret_cast<const std::uint16_t*>(of_group);
    const auto scale = S::load(of_slots + i % kParts<S> * S::kWidth);
    TERRACE_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      const auto both = S::mul(scale, S::set(q[r].group_scales[group]));
      score[r][i] = S::fma(Q4::to_floats(sum[r][i]), both, score[r][i]);
    }
  }
}

/// Octets of group `group` of channels, `n_octets` in all.
inline std::size_t octets_of_group(std::size_t group, std::size_t n_octets) noexcept {
  const std::size_t rest = n_octets - group * kOctetsPerGroup;
  return rest < kOctetsPerGroup ? rest : kOctetsPerGroup;
}

/// Raw scores of G groups of slots, the first at `run`: over the groups of channels, in order, the sum of
/// q * key times the keys' scale. `octets_at(group)` is where the octets of a group of channels lie, for the
/// first run.
template <class S, std::size_t R, std::size_t G, class Octets, class Fetch>
inline void score_q4_groups(const std::uint8_t* run, std::size_t d_k, const QuantizedQuery* q,
                            Octets&& octets_at, Fetch&& fetch, float* scores) noexcept {
  using F = typename S::F;
  constexpr std::size_t n = G * kParts<S>;
  F score[R][n];
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) score[r][i] = S::set(0.0F);
  }
  for (std::size_t group = 0; group < q4_groups(d_k); ++group) {
    add_q4_scores<S, R, G>(octets_at(group), run + group * kLanes * kQ4ScaleBytes, q4_key_run(d_k),
                           octets_of_group(group, octets(d_k)), q, group, score, fetch);
  }
  TERRACE_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) S::store(scores + r * kPageSlots + i * S::kWidth, score[r][i]);
  }
}

/// Scores of the open group: its rows are transposed a group of channels at a time. Missing slots come out as
/// copies of the last, so that no line is fetched for them.
template <class S, std::size_t R>
inline void score_q4_open_group(const std::uint8_t* run, std::size_t d_k, std::size_t n_slots,
                                const QuantizedQuery* q, float* scores) noexcept {
  const std::size_t n_octets = octets(d_k);
  const std::uint8_t* const rows = run + q4_key_scales(d_k);
  alignas(64) std::uint8_t turned[kOctetsPerGroup * kQ4RowBytes];
  const auto turn = [&](std::size_t group) {
    for (std::size_t s = 0; s < kLanes; ++s) {
      const std::size_t slot = s < n_slots ? s : n_slots - 1;
      const std::uint8_t* const from = rows + (slot * n_octets + group * kOctetsPerGroup) * kQuad;
      for (std::size_t i = 0; i < octets_of_group(group, n_octets); ++i) {
        std::memcpy(turned + (i * kLanes + s) * kQuad, from + i * kQuad, kQuad);
      }
    }
    return turned;
  };
  score_q4_groups<S, R, 1>(
      run, d_k, q, turn, [](const std::uint8_t*) {}, scores);
}

template <class S, std::size_t R, std::size_t G = kQ4Groups<S, R>>
inline void score_q4_page(const PageTask& task, std::size_t row, Groups seen, const Ahead& ahead,
                          float* scores) noexcept {
  const auto* keys = static_cast<const std::uint8_t*>(task.keys);
  const std::size_t run_bytes = q4_key_run(task.d_k);
  const std::size_t full = task.n_slots / kLanes < seen.last ? task.n_slots / kLanes : seen.last;
  std::size_t group = seen.first;
  const auto score = [&]<std::size_t n>(std::integral_constant<std::size_t, n>) {
    const std::uint8_t* const run = keys + group * run_bytes;
    const auto octets_at = [&](std::size_t of_channels) {
      return run + q4_key_scales(task.d_k) + of_channels * kOctetsPerGroup * kQ4RowBytes;
    };
    const auto fetch = [&](const std::uint8_t* p) { prefetch<kQ4RowBytes, kIntoSecondCache>(ahead.of(p)); };
    score_q4_groups<S, R, n>(run, task.d_k, task.quantized_q + row, octets_at, fetch,
                             scores + group * kLanes);
    group += n;
  };
  while (group + G <= full) score(std::integral_constant<std::size_t, G>{});
  while (group < full) score(std::integral_constant<std::size_t, 1>{});
  if (group == seen.last) return;
  score_q4_open_group<S, R>(keys + group * run_bytes, task.d_k, task.n_slots % kLanes, task.quantized_q + row,
                            scores + group * kLanes);
}

/// A row's weights times the values' scales in one group of channels, as integers; 0 outside its span.
struct Q4Weights {
  alignas(64) std::int8_t steps[kPageSlots];
  std::int32_t sum;  ///< of them
  float unit;
};

/// Lines of a group's run of values that are prefetched while its weights are made, two for every kLanes
/// slots; the others follow while it is read. If all of them were left until then, memory would be idle
/// before.
constexpr std::size_t kQ4LinesAtWeights = 2 * kPageSlots / kLanes;
/// The first quads that are not among them.
constexpr std::size_t kQ4QuadsLeft = kQ4LinesAtWeights - kQ4ValueScales / kQ4RowBytes;

template <class S>
inline void quantize_q4_weights(PageSpan span, const std::uint16_t* value_scale, const float* weights,
                                Groups seen, const Ahead& ahead, Q4Weights* to) noexcept {
  using F = typename S::F;
  const std::size_t begin = span.begin / kLanes * kLanes;
  const std::size_t end = (span.end + kLanes - 1) / kLanes * kLanes;
  const auto clear = [to](std::size_t from, std::size_t until) {
    if (from >= until) return;
    std::memset(to->steps + from, 0, until - from);
  };
  clear(seen.first * kLanes, begin);
  clear(end, seen.last * kLanes);
  to->sum = 0;
  alignas(64) float scaled[kPageSlots];
  F top[kParts<S>];
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) top[i] = S::set(0.0F);
  const auto* line = reinterpret_cast<const std::uint8_t*>(value_scale) + 2 * begin / kLanes * kQ4RowBytes;
  const auto fetch_line = [&] {
    prefetch<kQ4RowBytes, kIntoSecondCache>(ahead.of(line));
    line += kQ4RowBytes;
  };
  for (std::size_t s = begin; s < end; s += kLanes) {
    fetch_line();
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      const std::size_t at = s + i * S::kWidth;
      const F weight = S::load(weights + at);
      // The scale of a slot outside the span may be anything; its weight is 0. A NaN shows in the row's sum.
      const F product = S::mul(weight, S::load(value_scale + at));
      const F kept = S::if_less(S::set(0.0F), weight, product, S::set(0.0F));
      S::store(scaled + at, kept);
      top[i] = S::max(S::abs(kept), top[i]);
    }
  }
  to->unit = S::fold_max(top) / 127.0F;
  // Values that are almost zero add nothing; an infinite one turns the sum into 0 * infinity.
  if (!(to->unit > 1e-30F && to->unit < 1e30F)) {
    if (to->unit < 1.0F) to->unit = 0;
    return clear(begin, end);
  }
  const F inverse = S::set(1.0F / to->unit);
  typename S::Ints sum[kParts<S>];
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) sum[i] = S::Q4::set(0);
  for (std::size_t s = begin; s < end; s += kLanes) {
    fetch_line();
    typename S::Ints steps[kParts<S>];
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      steps[i] = S::to_ints(S::mul(S::load(scaled + s + i * S::kWidth), inverse));
      sum[i] = S::Q4::plus(sum[i], steps[i]);
    }
    S::store_i8(to->steps + s, steps);
  }
  to->sum = total<S>(sum);
}

/// sums[row] of one group of channels, the first kLanes of them or all: unit * sum over slots of w * value.
template <class S, std::size_t R>
inline void add_q4_values(const std::uint8_t* values, Groups seen, const Q4Weights* w, bool all,
                          const Ahead& ahead, float* sums, std::size_t sum_stride) noexcept {
  using Q4 = typename S::Q4;
  constexpr std::size_t kChains = R == 1 ? kLanes / kQuad : 1;  // one chain would wait for its own products
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) {
    typename S::Q8::Sum sum[R * kChains][2];
    TERRACE_UNROLL
    for (std::size_t r = 0; r < R * kChains; ++r) {
      sum[r][0] = sum[r][1] = Q4::set(r < R ? -kQ4Zero * w[r].sum : 0);
    }
    const std::size_t last = seen.last * (kLanes / kQuad);
    for (std::size_t first = seen.first * (kLanes / kQuad); first < last; first += kChains) {
      TERRACE_UNROLL
      for (std::size_t chain = 0; chain < kChains; ++chain) {
        const std::size_t at = first + chain;
        const std::uint8_t* const p = values + at * kQ4RowBytes + i * S::kWidth * kQuad;
        if (i == 0 && first >= kQ4QuadsLeft) prefetch<kQ4RowBytes, kIntoSecondCache>(ahead.of(p));
        typename Q4::Nibbles quad[2];
        Q4::load(p, &quad[0], &quad[1]);
        TERRACE_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          TERRACE_UNROLL
          for (std::size_t half = 0; half < 2; ++half) {
            auto& s = sum[chain * R + r][half];
            s = Q4::add(s, quad[half], w[r].steps + at * kQuad);
          }
        }
      }
    }
    TERRACE_UNROLL
    for (std::size_t chain = 1; chain < kChains; ++chain) {
      TERRACE_UNROLL
      for (std::size_t half = 0; half < 2; ++half) {
        sum[0][half] = Q4::plus(sum[0][half], sum[chain * R][half]);
      }
    }
    TERRACE_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      TERRACE_UNROLL
      for (std::size_t half = 0; half < 2; ++half) {
        if (half == 1 && !all) continue;
        S::store(sums + r * sum_stride + half * kLanes + i * S::kWidth,
                 S::mul(Q4::to_floats(sum[r][half]), S::set(w[r].unit)));
      }
    }
  }
}

/// Rows [row, row + R) of the task.
template <class S, std::size_t R>
inline void attend_q4_rows(const PageTask& task, std::size_t row) noexcept {
  const std::size_t width = padded_width(task.d_v);
  const std::size_t state_stride = state_floats(task.d_v);
  const Groups seen = groups_seen<R>(task.spans + row);
  const Ahead ahead(task, row, q4_groups(task.d_v) * kQ4ValueRun / kPageSlots, kBytesAhead);
  alignas(64) float scores[R * kPageSlots];
  Q4Weights weights[R];
  score_q4_page<S, R>(task, row, seen, ahead, scores);
  float* const states = task.states + row * state_stride;
  for (std::size_t r = 0; r < R; ++r) {
    weigh_row<S>(task, row + r, task.quantized_q[row + r].scale * task.scale, scores + r * kPageSlots,
                 states + r * state_stride);
  }
  const auto* run = static_cast<const std::uint8_t*>(task.values);
  for (std::size_t c = 0; c < width; c += kQ4Group, run += kQ4ValueRun) {
    const auto* const scales = reinterpret_cast<const std::uint16_t*>(run);
    for (std::size_t r = 0; r < R; ++r) {
      quantize_q4_weights<S>(task.spans[row + r], scales, scores + r * kPageSlots, seen, ahead, weights + r);
    }
    add_q4_values<S, R>(run + kQ4ValueScales, seen, weights, c + kQ4Group <= width, ahead,
                        states + kStateHeader + c, state_stride);
  }
}

template <class S>
void attend_page_q4(const PageTask& task) noexcept {
  constexpr std::size_t kRows = S::Q8::kRows;
  std::size_t row = 0;
  for (; row + kRows <= task.n_rows; row += kRows) attend_q4_rows<S, kRows>(task, row);
  for (; row < task.n_rows; ++row) attend_q4_rows<S, 1>(task, row);
}

}  // namespace
}  // namespace terrace
