// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/ceil_div.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/kernels/dense_rows.h"
#include "engine/kernels/lanes.h"

// A row in 16 bits times rows of int8 weights. Beyond lanes.h an instruction set says
//   S::Words                a register of bytes, unpacked to two of int16 in the order of the CPU's unpacking
//     kColumns                  bytes of the register
//     Pair                      the two registers
//     load(s), store(s, v)      kColumns int16 in that order
//     arranged(v)               loaded in natural order, brought into that order
//     times_256(w)              kColumns int8, times 256
//     set(a)
//     multiply(a, b)            (a * b + 2^14) >> 15
//     larger(largest, a)        max(largest, |a|)
//     fold(largest)             the largest of all
//     store_i8(q, v)            int8 in natural order
//   S::Q8                   as for dense_q8_dot.h

namespace terrace {
namespace {

/// x * (1 / scale) as int16, NaN as 0.
template <class S>
inline void store_words(const float* x, float inverse, std::int16_t* s) noexcept {
  typename S::Ints steps[kParts<S>];
  TERRACE_UNROLL
  for (std::size_t p = 0; p < kParts<S>; ++p) {
    const auto v = S::mul(S::load(x + p * S::kWidth), S::set(inverse));
    steps[p] = S::to_ints(S::if_less(S::abs(v), S::set(32768.0F), v, S::set(0.0F)));
  }
  S::store_i16(s, steps);
}

template <class S>
void quantize_i16(const float* x, std::size_t d, float scale, std::int16_t* s) noexcept {
  using Words = typename S::Words;
  const float inverse = 1.0F / scale;
  const std::size_t padded = ceil_div(d, kPackColumns) * kPackColumns;
  std::size_t i = 0;
  for (; i + kLanes <= d; i += kLanes) store_words<S>(x + i, inverse, s + i);
  if (i < d) {
    store_words<S>(PartialGroup<float>(x + i, d - i).lanes, inverse, s + i);
    i += kLanes;
  }
  std::fill(s + i, s + padded, std::int16_t{0});
  for (i = 0; i < padded; i += Words::kColumns) Words::store(s + i, Words::arranged(Words::load(s + i)));
}

template <class S>
std::uint32_t gate_q8(const std::int16_t* s, const std::int8_t* w, std::size_t d, std::int8_t* q,
                      std::int32_t* sum) noexcept {
  using Words = typename S::Words;
  using Pair = typename Words::Pair;
  alignas(64) std::int16_t products[kMostProduct];
  Pair lanes = Words::set(0);
  const auto multiply = [&](std::size_t i, const std::int8_t* from) {
    const Pair product = Words::multiply(Words::load(s + i), Words::times_256(from));
    lanes = Words::larger(lanes, product);
    Words::store(products + i, product);
  };
  std::size_t i = 0;
  for (; i + Words::kColumns <= d; i += Words::kColumns) multiply(i, w + i);
  if (i < d) {
    std::int8_t rest[Words::kColumns] = {};
    std::memcpy(rest, w + i, d - i);
    multiply(i, rest);
    i += Words::kColumns;
  }
  const std::size_t end = i;
  const std::uint32_t largest = Words::fold(lanes);
  if (largest < kLeastGated) return largest;
  const Pair factor = Words::set(static_cast<std::int16_t>(requantize_factor(largest)));
  for (i = 0; i < end; i += Words::kColumns) {
    Words::store_i8(q + i, Words::multiply(Words::load(products + i), factor));
  }
  if (end % kPackColumns != 0) std::memset(q + end, 0, kPackColumns - end % kPackColumns);
  *sum = sum_i8<S>(q, d);
  return largest;
}

}  // namespace
}  // namespace terrace
