// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>

#include "attention/kernels/attention_impl.h"
#include "engine/kernels/lanes_neon.h"

// What the two NEON tables share: everything but the products of bytes.

namespace terrace {
namespace {

struct NeonCommon : NeonLanes {
  static constexpr std::size_t kAccumulators = 16;

  static void transpose(F* rows) noexcept {
    const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(rows[0], rows[1]));
    const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(rows[0], rows[1]));
    const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(rows[2], rows[3]));
    const float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(rows[2], rows[3]));
    rows[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
    rows[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
    rows[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
    rows[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
  }

  /// Dot4::add(sum, a, b): sum + sums of four neighbouring products.
  template <class Dot4>
  struct Bytes {
    static constexpr std::size_t kAccumulators = 16;
    static constexpr std::size_t kRows = 2;
    using Sum = int32x4_t;
    using Keys = int8x16_t;
    using Values = int8x16_t;
    static Sum start(std::int32_t /*x_sum*/) noexcept { return zero(); }
    static Sum zero() noexcept { return vdupq_n_s32(0); }
    static Keys load_keys(const std::int8_t* p) noexcept { return vld1q_s8(p); }
    static Values load_values(const std::int8_t* p) noexcept { return vld1q_s8(p); }
    static Sum add_key(Sum sum, Keys k, const std::int8_t* x) noexcept {
      std::int32_t four;
      std::memcpy(&four, x, sizeof four);
      return Dot4::add(sum, k, vreinterpretq_s8_s32(vdupq_n_s32(four)));
    }
    static Sum add_value(Sum sum, Values v, const std::int8_t* w) noexcept { return add_key(sum, v, w); }
    static F join(Sum high, Sum low) noexcept {
      return fma(vcvtq_f32_s32(high), set(kHighUnit), vcvtq_f32_s32(low));
    }
  };

  template <class Dot4>
  struct HalfBytes {
    using Nibbles = int8x16_t;
    static void load(const std::uint8_t* p, Nibbles* low, Nibbles* high) noexcept {
      const uint8x16_t bytes = vld1q_u8(p);
      *low = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15)));
      *high = vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4));
    }
    static int32x4_t set(std::int32_t x) noexcept { return vdupq_n_s32(x); }
    static F to_floats(int32x4_t sum) noexcept { return vcvtq_f32_s32(sum); }
    static int32x4_t plus(int32x4_t a, int32x4_t b) noexcept { return vaddq_s32(a, b); }
    static int32x4_t add(int32x4_t sum, Nibbles n, const std::int8_t* x) noexcept {
      return Bytes<Dot4>::add_key(sum, n, x);
    }
  };
};

}  // namespace
}  // namespace terrace
