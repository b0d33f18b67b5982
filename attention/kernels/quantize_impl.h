// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "attention/kernels/attention_kernels.h"
#include "engine/dtype.h"
#include "engine/kernels/lanes.h"

// Floats to integers, for attend_page_q8 and attend_page_q4: q8 queries and softmax weights of 14 bits, in
// two bytes each, and the 4-bit rows of a cache. Rounded lane by lane, so every instruction set gives the
// same bits. Beyond engine/kernels/lanes.h an instruction set `S` says
//   S::Q4::set(x), plus(a, b), to_floats(a)   of Ints, as for attend_page_q4_impl.h

namespace terrace {
namespace {

constexpr float kUnitHigh = kHighUnit;
/// Largest query that its two bytes hold, and largest weight that has no sign (both bytes in 0..127).
constexpr float kQueryLargest = 127 * kHighUnit + 63;
constexpr float kWeightLargest = 127 * kHighUnit + 127;
/// Adding it leaves no bits for a fraction: rounds to nearest, ties to even.
constexpr float kRoundQ8 = 12582912.0F;

template <class S>
inline typename S::F round_lanes(typename S::F x) noexcept {
  return S::sub(S::add(x, S::set(kRoundQ8)), S::set(kRoundQ8));
}

/// Sum over the lanes of integers that stay below 2^24 together.
template <class S>
inline std::int32_t total(const typename S::Ints* sums) noexcept {
  typename S::F parts[kParts<S>];
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) parts[i] = S::Q4::to_floats(sums[i]);
  return static_cast<std::int32_t>(S::fold(parts));
}

/// Integers as two bytes each, in separate arrays.
template <class S>
struct SplitInts {
  typename S::Ints high[kParts<S>], low[kParts<S>];
};

/// Stores kLanes integers as two bytes each; `below` decides which part of a unit the low byte covers.
template <class S>
inline SplitInts<S> store_split(const typename S::F* x, float below, std::int8_t* high,
                                std::int8_t* low) noexcept {
  using F = typename S::F;
  SplitInts<S> split;
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) {
    const F rounded = round_lanes<S>(S::mul(S::sub(x[i], S::set(below)), S::set(1.0F / kUnitHigh)));
    split.high[i] = S::to_ints(rounded);
    split.low[i] = S::to_ints(S::fma(rounded, S::set(-kUnitHigh), x[i]));
  }
  S::store_i8(high, split.high);
  S::store_i8(low, split.low);
  return split;
}

template <class S>
void quantize_query(const float* q, std::size_t d_k, QuantizedQuery* to) noexcept {
  using F = typename S::F;
  const auto for_groups = [&](auto&& fn) {
    std::size_t d = 0;
    for (; d + kLanes <= d_k; d += kLanes) fn(d, q + d);
    if (d < d_k) fn(d, PartialGroup<float>(q + d, d_k - d).lanes);
  };
  F top[kParts<S>];
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) top[i] = S::set(0.0F);
  for_groups([&](std::size_t, const float* x) {
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      top[i] = S::max(S::abs(S::load(x + i * S::kWidth)), top[i]);  // a NaN is not greater than anything
    }
  });
  to->scale = S::fold_max(top) / kQueryLargest;
  const F inverse = S::set(to->scale > 0 ? 1.0F / to->scale : 0.0F);
  SplitInts<S> sums;
  TERRACE_UNROLL
  for (std::size_t i = 0; i < kParts<S>; ++i) sums.high[i] = sums.low[i] = S::Q4::set(0);
  for_groups([&](std::size_t d, const float* x) {
    F steps[kParts<S>];
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      // In range but for a scale so small that its inverse is infinite, and for NaN and infinity.
      const F scaled = S::mul(S::load(x + i * S::kWidth), inverse);
      const F kept = S::if_less(S::abs(scaled), S::set(kQueryLargest + 0.5F), scaled, S::set(0.0F));
      steps[i] = round_lanes<S>(kept);
    }
    const SplitInts<S> split = store_split<S>(steps, 0.0F, to->high + d, to->low + d);
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) {
      sums.high[i] = S::Q4::plus(sums.high[i], split.high[i]);
      sums.low[i] = S::Q4::plus(sums.low[i], split.low[i]);
    }
  });
  to->high_sum = total<S>(sums.high);
  to->low_sum = total<S>(sums.low);
}

/// A full group of kQ4Group values: the rest of the last one is zeros.
class WholeGroup {
 public:
  WholeGroup(const float* x, std::size_t n) noexcept : x_(x) {
    if (n >= kQ4Group) return;
    std::memcpy(copy_, x, n * sizeof(float));
    std::memset(copy_ + n, 0, (kQ4Group - n) * sizeof(float));
    x_ = copy_;
  }
  const float* data() const noexcept { return x_; }

 private:
  const float* x_;
  alignas(64) float copy_[kQ4Group];
};

template <class S>
void quantize_query_q4(const float* q, std::size_t d_k, QuantizedQuery* to) noexcept {
  using F = typename S::F;
  to->scale = 1.0F;
  for (std::size_t begin = 0, group = 0; begin < d_k; begin += kQ4Group, ++group) {
    const WholeGroup whole(q + begin, d_k - begin);
    F top[kParts<S>];
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) top[i] = S::set(0.0F);
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kQ4Group / S::kWidth; ++i) {
      const F x = S::abs(S::load(whole.data() + i * S::kWidth));
      top[i % kParts<S>] = S::max(x, top[i % kParts<S>]);  // a NaN is not greater than anything
    }
    const float scale = S::fold_max(top) / 127.0F;
    const F inverse = S::set(scale > 0 ? 1.0F / scale : 0.0F);
    typename S::Ints sum[kParts<S>];
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) sum[i] = S::Q4::set(0);
    for (std::size_t half = 0; half < kQ4Group && begin + half < d_k; half += kLanes) {
      typename S::Ints steps[kParts<S>];
      TERRACE_UNROLL
      for (std::size_t i = 0; i < kParts<S>; ++i) {
        // In range but for a scale so small that its inverse is infinite, and for NaN and infinity.
        const F scaled = S::mul(S::load(whole.data() + half + i * S::kWidth), inverse);
        steps[i] = S::to_ints(S::if_less(S::abs(scaled), S::set(127.5F), scaled, S::set(0.0F)));
        sum[i] = S::Q4::plus(sum[i], steps[i]);
      }
      S::store_i8(to->high + begin + half, steps);
    }
    to->group_scales[group] = scale;
    to->group_sums[group] = total<S>(sum);
  }
}

template <class S>
void quantize_q4(const float* x, std::size_t d, std::uint8_t* steps, std::uint16_t* scales) noexcept {
  using F = typename S::F;
  constexpr std::size_t n = kQ4Group / S::kWidth;
  constexpr float kLeast = 1e-36F;  // below, the scale would be denormal, which some threads flush to zero
  for (std::size_t begin = 0; begin < d; begin += kQ4Group, steps += kQ4Group, ++scales) {
    const WholeGroup whole(x + begin, d - begin);
    const float* const group = whole.data();
    F most[kParts<S>], least[kParts<S>];  // largest x and largest -x; a NaN is not greater than anything
    TERRACE_UNROLL
    for (std::size_t i = 0; i < kParts<S>; ++i) most[i] = least[i] = S::set(0.0F);
    TERRACE_UNROLL
    for (std::size_t i = 0; i < n; ++i) {
      const F lanes = S::load(group + i * S::kWidth);
      most[i % kParts<S>] = S::max(lanes, most[i % kParts<S>]);
      least[i % kParts<S>] = S::max(S::sub(S::set(0.0F), lanes), least[i % kParts<S>]);
    }
    const float above = S::fold_max(most), below = S::fold_max(least);
    // The extreme becomes -8: the end of the range that reaches further.
    const float extreme = above < below ? -below : above;
    const bool any = (above < below ? below : above) >= kLeast;
    *scales = any ? f32_to_bf16(extreme / -static_cast<float>(kQ4Zero)) : std::uint16_t{0};
    const F inverse = S::set(any ? 1.0F / bf16_to_f32(*scales) : 0.0F);
    TERRACE_UNROLL
    for (std::size_t half = 0; half < kQ4Group; half += kLanes) {
      typename S::Ints parts[kParts<S>];
      TERRACE_UNROLL
      for (std::size_t i = 0; i < kParts<S>; ++i) {
        const F scaled = S::mul(S::load(group + half + i * S::kWidth), inverse);
        // In range but for NaN and infinity.
        const F kept = S::if_less(S::abs(scaled), S::set(kQ4Zero + 0.5F), scaled, S::set(0.0F));
        const F step = round_lanes<S>(kept);
        const F top = S::set(static_cast<float>(kQ4Zero - 1));
        parts[i] = S::to_ints(S::add(S::if_less(top, step, top, step), S::set(static_cast<float>(kQ4Zero))));
      }
      S::store_i8(reinterpret_cast<std::int8_t*>(steps + half), parts);
    }
  }
}

}  // namespace
}  // namespace terrace
