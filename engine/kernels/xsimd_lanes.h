// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <xsimd/xsimd.hpp>

// The operations of lanes.h that xsimd offers for every architecture. fma is not among them: xsimd 8.1 has
// none for AVX-512, where it rounds twice.

namespace terrace {
namespace {

template <class Arch>
struct XsimdLanes {
  using F = xsimd::batch<float, Arch>;
  static constexpr std::size_t kWidth = F::size;

  static F load(const float* p) noexcept { return F::load_unaligned(p); }
  static void store(float* p, F x) noexcept { x.store_unaligned(p); }
  static F set(float a) noexcept { return F(a); }
  static F add(F a, F b) noexcept { return a + b; }
  static F sub(F a, F b) noexcept { return a - b; }
  static F mul(F a, F b) noexcept { return a * b; }
  static F div(F a, F b) noexcept { return a / b; }
  static F abs(F a) noexcept { return xsimd::abs(a); }
  static F min(F a, F b) noexcept { return xsimd::select(a < b, a, b); }
  static F max(F a, F b) noexcept { return xsimd::select(a > b, a, b); }
  static F if_less(F a, F b, F yes, F no) noexcept { return xsimd::select(a < b, yes, no); }
  static F if_equal(F a, F b, F yes, F no) noexcept { return xsimd::select(a == b, yes, no); }
};

}  // namespace
}  // namespace terrace
