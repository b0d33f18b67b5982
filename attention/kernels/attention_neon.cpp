// SPDX-License-Identifier: Apache-2.0
#include "attention/kernels/attention_neon.h"

namespace terrace {
namespace {

struct WideningDot4 {
  static int32x4_t add(int32x4_t sum, int8x16_t a, int8x16_t b) noexcept {
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    const int16x8_t high = vmull_s8(vget_high_s8(a), vget_high_s8(b));
    return vpadalq_s16(sum, vpaddq_s16(low, high));  // 2 * 127 * 127 fits 16 bits
  }
};

struct Neon : NeonCommon {
  using Q8 = Bytes<WideningDot4>;
  using Q4 = HalfBytes<WideningDot4>;
};

constexpr AttentionKernels kTable = make_attention_kernels<Neon>(Isa::kNeon, "neon");

}  // namespace

const AttentionKernels& attention_kernels_neon() noexcept { return kTable; }

}  // namespace terrace
