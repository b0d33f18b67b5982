// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "engine/kernels/lanes.h"
#include "engine/kernels/xsimd_lanes.h"

namespace terrace {
namespace {

struct NeonLanes : XsimdLanes<xsimd::neon64> {
  static F fma(F a, F b, F c) noexcept { return vfmaq_f32(c, a, b); }
  // xsimd 8.1 divides floats by a reciprocal estimate, which is not always the nearest float.
  static F div(F a, F b) noexcept { return vdivq_f32(a, b); }

  using XsimdLanes::load;
  static F load(const std::uint16_t* p) noexcept {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
  }
  static F load(const std::int8_t* p) noexcept {
    std::uint32_t four;
    std::memcpy(&four, p, sizeof four);
    const int16x8_t words = vmovl_s8(vcreate_s8(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)));
  }
  static F times_power(F p, F n) noexcept {
    const uint32x4_t exponent = vshlq_n_u32(vreinterpretq_u32_f32(n), 23);
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p), exponent));
  }
  using Ints = int32x4_t;
  static Ints to_ints(F x) noexcept { return vcvtnq_s32_f32(x); }
  static void store_i8(std::int8_t* q, const Ints* parts) noexcept {
    const auto words = [&](std::size_t i) {
      return vcombine_s16(vmovn_s32(parts[i]), vmovn_s32(parts[i + 1]));
    };
    vst1q_s8(q, vcombine_s8(vmovn_s16(words(0)), vmovn_s16(words(2))));
  }
  static void store_i16(std::int16_t* s, const Ints* parts) noexcept {
    vst1q_s16(s, vcombine_s16(vmovn_s32(parts[0]), vmovn_s32(parts[1])));
    vst1q_s16(s + 8, vcombine_s16(vmovn_s32(parts[2]), vmovn_s32(parts[3])));
  }
  static float fold(const F* parts) noexcept {
    const float32x4_t four = vaddq_f32(vaddq_f32(parts[0], parts[2]), vaddq_f32(parts[1], parts[3]));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
  }

  static float fold_max(const F* parts) noexcept {
    const F four = max(max(parts[0], parts[2]), max(parts[1], parts[3]));
    float lanes[4];
    store(lanes, four);
    const float even = lanes[0] > lanes[2] ? lanes[0] : lanes[2];
    const float odd = lanes[1] > lanes[3] ? lanes[1] : lanes[3];
    return even > odd ? even : odd;
  }
};

}  // namespace
}  // namespace terrace
