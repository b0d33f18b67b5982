// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>

#include "engine/tensor.h"

// What kernel bodies written once for every vector width share: groups of kLanes values in registers of any
// width. An instruction set is a struct `S`; the common parts are in xsimd_lanes.h and lanes_<isa>.h.
//   S::F, S::kWidth             register of kWidth floats; kWidth divides kLanes
//   S::load(p)                  kWidth floats, or as many bf16 or int8 values as floats; any alignment
//   S::store(p, x)              kWidth floats, any alignment
//   S::set(a)                   a in every lane
//   S::fma(a, b, c)             a * b + c, rounded once
//   S::add, sub, mul, div, abs
//   S::min(a, b), max(a, b)     a < b ? a : b;  a > b ? a : b
//   S::if_less(a, b, yes, no)   lane by lane; if_equal likewise
//   S::times_power(p, n)        p * 2^k, where k is the integer in the low bits of n = 1.5 * 2^23 + k
//   S::Ints, to_ints(x)         kWidth int32, nearest to floats below 2^22, ties to even
//   S::store_i8(q, parts)       kLanes integers in -128..127 as int8
//   S::store_i16(s, parts)      kLanes integers in -32768..32767 as int16
//   S::fold(parts)              the tree 16 -> 8 -> 4 -> 2 -> 1 that adds lane i + 8 to i, i + 4 to i, ...
//   S::fold_max(parts)          the same tree with max
// Everything is in unnamed namespaces: two ISA files never share a body.

#ifdef __clang__
#define TERRACE_UNROLL _Pragma("unroll")
#else
#define TERRACE_UNROLL _Pragma("GCC unroll 16")
#endif

namespace terrace {
namespace {

/// Registers that hold one group of kLanes floats.
template <class S>
constexpr std::size_t kParts = kLanes / S::kWidth;

/// The last, partial group of a row: `n` values, then zeros up to kLanes. Nothing is read beyond the row.
template <class T>
struct PartialGroup {
  PartialGroup(const T* p, std::size_t n) noexcept { std::memcpy(lanes, p, n * sizeof(T)); }
  alignas(64) T lanes[kLanes] = {};
};

/// exp(x), at most 1.1 ulp off for -87 <= x <= 88, 0 below -87, NaN for NaN. Exact at 0.
///   k = round(x / ln 2), r = x - k ln 2 (in two steps), exp(x) = 2^k (1 + r + r^2 p(r))
/// p is the minimax polynomial of degree 4 for the relative error of the result on |r| <= ln 2 / 2 (3e-9),
/// its coefficients rounded to f32 one after the other, the rest refitted each time.
template <class S>
inline typename S::F exp_lanes(typename S::F x) noexcept {
  using F = typename S::F;
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  const F shifted = S::fma(x, S::set(1.44269504F), S::set(kRound));
  const F k = S::sub(shifted, S::set(kRound));
  F r = S::fma(k, S::set(-0.693145752F), x);
  r = S::fma(k, S::set(-1.42860677e-6F), r);
  F p = S::set(0x1.6a4d14p-10F);
  p = S::fma(p, r, S::set(0x1.12398ap-7F));
  p = S::fma(p, r, S::set(0x1.5558bp-5F));
  p = S::fma(p, r, S::set(0x1.555492p-3F));
  p = S::fma(p, r, S::set(0x1.fffffcp-2F));
  const F e = S::add(S::fma(S::mul(r, r), p, r), S::set(1.0F));
  return S::if_less(x, S::set(-87.0F), S::set(0.0F), S::times_power(e, shifted));
}

}  // namespace
}  // namespace terrace
