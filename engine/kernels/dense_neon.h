// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "engine/kernels/dense_impl.h"
#include "engine/kernels/lanes_neon.h"

// What the two NEON tables share: everything but the products of bytes.

namespace terrace {
namespace {

// Four floats that lie `step` apart.
inline float32x4_t load_four(const float* p, std::size_t step) noexcept {
  if (step == 1) return vld1q_f32(p);
  float32x4_t v = vdupq_n_f32(p[0]);
  v = vld1q_lane_f32(p + step, v, 1);
  v = vld1q_lane_f32(p + 2 * step, v, 2);
  return vld1q_lane_f32(p + 3 * step, v, 3);
}
inline void store_four(float* p, std::size_t step, float32x4_t v) noexcept {
  if (step == 1) return vst1q_f32(p, v);
  vst1q_lane_f32(p, v, 0);
  vst1q_lane_f32(p + step, v, 1);
  vst1q_lane_f32(p + 2 * step, v, 2);
  vst1q_lane_f32(p + 3 * step, v, 3);
}

struct NeonCommon : NeonLanes {
  // 2 x 3 outputs of four registers each, three of activations and one of weights: 28 of 32.
  static constexpr std::size_t kRows = 2;
  static constexpr std::size_t kTokens = 3;
  static constexpr std::size_t kStreams = 4;
  static constexpr std::size_t kPrefetch = 0;

  static F keep(F v) noexcept { return v; }  // NEON arithmetic has no memory operands

  template <class T>
  static F load_tight(const T* p) noexcept {
    return load(p);
  }

  static constexpr bool kNanStoresZero = true;

  struct Words {
    static constexpr std::size_t kColumns = 16;
    struct Pair {
      int16x8_t low, high;
    };
    static Pair load(const std::int16_t* s) noexcept { return {vld1q_s16(s), vld1q_s16(s + 8)}; }
    static void store(std::int16_t* s, Pair v) noexcept {
      vst1q_s16(s, v.low);
      vst1q_s16(s + 8, v.high);
    }
    static Pair arranged(Pair v) noexcept { return v; }
    static Pair times_256(const std::int8_t* w) noexcept {
      const int8x16_t bytes = vld1q_s8(w), zero = vdupq_n_s8(0);
      return {vreinterpretq_s16_s8(vzip1q_s8(zero, bytes)), vreinterpretq_s16_s8(vzip2q_s8(zero, bytes))};
    }
    static Pair set(std::int16_t a) noexcept { return {vdupq_n_s16(a), vdupq_n_s16(a)}; }
    static Pair multiply(Pair a, Pair b) noexcept {
      return {vqrdmulhq_s16(a.low, b.low), vqrdmulhq_s16(a.high, b.high)};
    }
    static Pair larger(Pair largest, Pair a) noexcept {
      return {vmaxq_s16(largest.low, vabsq_s16(a.low)), vmaxq_s16(largest.high, vabsq_s16(a.high))};
    }
    static std::uint32_t fold(Pair largest) noexcept {
      return static_cast<std::uint32_t>(vmaxvq_s16(vmaxq_s16(largest.low, largest.high)));
    }
    static void store_i8(std::int8_t* q, Pair v) noexcept {
      vst1q_s8(q, vcombine_s8(vqmovn_s16(v.low), vqmovn_s16(v.high)));
    }
  };

  /// A run of 64 q4 weights as -8..7, in the order of the columns.
  struct Run {
    int8x16_t part[4];
  };
  static Run load_run(const std::uint8_t* p) noexcept {
    const uint8x16_t a = vld1q_u8(p);
    const uint8x16_t b = vld1q_u8(p + 16);
    const uint8x16_t low = vdupq_n_u8(15);
    const int8x16_t eight = vdupq_n_s8(8);
    const auto centred = [eight](uint8x16_t nibbles) {
      return vsubq_s8(vreinterpretq_s8_u8(nibbles), eight);
    };
    return {{centred(vandq_u8(a, low)), centred(vandq_u8(b, low)), centred(vshrq_n_u8(a, 4)),
             centred(vshrq_n_u8(b, 4))}};
  }
  static void unpack_q4(const std::uint8_t* p, std::int8_t* out) noexcept {
    const Run run = load_run(p);
    for (std::size_t i = 0; i < 4; ++i) vst1q_s8(out + 16 * i, run.part[i]);
  }

  /// q8 and q4 products. dot4(sum, w, x): sum + sums of four neighbouring products, in order.
  template <class Dot4>
  struct Quantized {
    static constexpr std::size_t kBytes = 16;
    static constexpr std::size_t kRows = 4;
    static constexpr std::size_t kTokens = 4;
    static constexpr std::size_t kStreams = 4;
    static constexpr std::size_t kChains = 4;
    using Sum = int32x4_t;
    using X = int8x16_t;
    static Sum zero() noexcept { return vdupq_n_s32(0); }
    static X load_x(const std::int8_t* q) noexcept { return vld1q_s8(q); }
    static int8x16_t load_w(const std::int8_t* p) noexcept { return vld1q_s8(p); }
    static X load_part_x(const std::int8_t* q, std::size_t n) noexcept {
      return load_x(PartialBytes<kBytes>(q, n).bytes);
    }
    static int8x16_t load_part_w(const std::int8_t* p, std::size_t n) noexcept {
      return load_w(PartialBytes<kBytes>(p, n).bytes);
    }
    static Sum add(Sum sum, int8x16_t w, X x) noexcept { return Dot4::add(sum, w, x); }
    static Sum merge(Sum a, Sum b) noexcept { return vaddq_s32(a, b); }
    static std::int32_t total(Sum sum, std::int32_t /*x_sum*/) noexcept { return vaddvq_s32(sum); }
    static void put_four(Sum a, Sum b, Sum c, Sum d, const float* w_scale, const QuantizedRow& x, float* y,
                         std::size_t step) noexcept {
      const int32x4_t totals = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
      const float32x4_t scales = vmulq_n_f32(load_four(w_scale, step), x.scale);
      store_four(y, step, vmulq_f32(vcvtq_f32_s32(totals), scales));
    }
  };
  template <class Dot4>
  struct FourBit {
    static constexpr std::size_t kTokens = 1;
    struct X {
      int8x16_t part[2 * kQ4Sums];
    };
    struct W {
      Run run[2];
    };
    static X load_x(const std::int8_t* q) noexcept {
      X x;
      TERRACE_UNROLL
      for (std::size_t i = 0; i < 2 * kQ4Sums; ++i) x.part[i] = vld1q_s8(q + 16 * i);
      return x;
    }
    static W load_w(const std::uint8_t* p) noexcept { return {{load_run(p), load_run(p + kQ4Columns / 2)}}; }
    static void sums(const W (&w)[4], const X& x, F (&out)[4]) noexcept {
      TERRACE_UNROLL
      for (std::size_t r = 0; r < 4; ++r) {
        int32x4_t group[kQ4Sums];
        TERRACE_UNROLL
        for (std::size_t g = 0; g < kQ4Sums; ++g) {
          const Run& run = w[r].run[g / 2];
          const int32x4_t half = Dot4::add(vdupq_n_s32(0), run.part[g % 2 * 2], x.part[2 * g]);
          group[g] = Dot4::add(half, run.part[g % 2 * 2 + 1], x.part[2 * g + 1]);
        }
        out[r] = vcvtq_f32_s32(vpaddq_s32(vpaddq_s32(group[0], group[1]), vpaddq_s32(group[2], group[3])));
      }
    }
    static void scales(const std::uint16_t* const (&p)[4], std::size_t i, F (&out)[4]) noexcept {
      TERRACE_UNROLL
      for (std::size_t r = 0; r < 4; ++r) {
        out[r] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p[r] + i), 16));
      }
    }
    static void fold(const F (&sum)[4], float* out) noexcept {
      for (std::size_t r = 0; r < 4; ++r) {
        const float32x4_t row = sum[r];
        const float32x2_t two = vadd_f32(vget_low_f32(row), vget_high_f32(row));
        out[r] = vget_lane_f32(vpadd_f32(two, two), 0);
      }
    }
  };

  // Four streams, as the dot kernels have.
  static std::uint64_t read(const void* data, std::size_t n) noexcept {
    constexpr std::size_t kLine = 64;
    const auto* const p = static_cast<const std::uint8_t*>(data);
    const std::size_t part = n / kLine / 4 * kLine;
    const auto line_sum = [](const std::uint8_t* line) {
      return veorq_u8(veorq_u8(vld1q_u8(line), vld1q_u8(line + 16)),
                      veorq_u8(vld1q_u8(line + 32), vld1q_u8(line + 48)));
    };
    uint8x16_t sum[4] = {vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0)};
    for (std::size_t i = 0; i < part; i += kLine) {
      TERRACE_UNROLL
      for (std::size_t k = 0; k < 4; ++k) sum[k] = veorq_u8(sum[k], line_sum(p + k * part + i));
    }
    for (std::size_t i = 4 * part; i < n; i += kLine) sum[0] = veorq_u8(sum[0], line_sum(p + i));
    const uint64x2_t all = vreinterpretq_u64_u8(veorq_u8(veorq_u8(sum[0], sum[1]), veorq_u8(sum[2], sum[3])));
    return vgetq_lane_u64(all, 0) ^ vgetq_lane_u64(all, 1);
  }
};

}  // namespace
}  // namespace terrace
