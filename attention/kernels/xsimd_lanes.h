// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <xsimd/xsimd.hpp>

// The operations of lanes.h that xsimd offers for every architecture.

namespace terrace {
namespace {

template <class Arch>
struct XsimdLanes {
  using F = xsimd::batch<float, Arch>;
  using I = xsimd::batch<std::int32_t, Arch>;
  static constexpr std::size_t kWidth = F::size;

  static F load(const float* p) noexcept { return F::load_unaligned(p); }
  static void store(float* p, F x) noexcept { x.store_unaligned(p); }
  static F set(float a) noexcept { return F(a); }
  static F fma(F a, F b, F c) noexcept { return xsimd::fma(a, b, c); }
  static F add(F a, F b) noexcept { return a + b; }
  static F sub(F a, F b) noexcept { return a - b; }
  static F mul(F a, F b) noexcept { return a * b; }
  static F max(F a, F b) noexcept { return xsimd::select(a > b, a, b); }
  static F if_less(F a, F b, F yes, F no) noexcept { return xsimd::select(a < b, yes, no); }
  static F if_equal(F a, F b, F yes, F no) noexcept { return xsimd::select(a == b, yes, no); }
  static F times_power(F p, F n) noexcept {
    const I exponent = xsimd::bitwise_cast<I>(n) << 23;
    return xsimd::bitwise_cast<F>(xsimd::bitwise_cast<I>(p) + exponent);
  }
};

}  // namespace
}  // namespace terrace
