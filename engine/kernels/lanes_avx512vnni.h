// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/kernels/lanes_avx512.h"

namespace terrace {
namespace {

/// sum + products of unsigned bytes u with signed bytes s, four neighbours to a lane. Given the intrinsic,
/// GCC 12 copies every accumulator and spills some: 133 instead of 205 G multiply-adds per second (Zen 4).
inline __m512i add_products(__m512i sum, __m512i u, __m512i s) noexcept {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(s));
  return sum;
}

}  // namespace
}  // namespace terrace
