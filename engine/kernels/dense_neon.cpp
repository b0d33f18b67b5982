// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/dense_neon.h"

namespace terrace {
namespace {

/// Without SDOT: products in 16 bits (127 * 127 fits, a sum of three might not), then pairs of pairs in 32
/// bits.
struct Widening {
  static int32x4_t add(int32x4_t sum, int8x16_t w, int8x16_t x) noexcept {
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(w, x));
    return vaddq_s32(sum, vpaddq_s32(low, high));
  }
};

struct Neon : NeonCommon {
  using Q8 = Quantized<Widening>;
  using Q4 = FourBit<Widening>;
};

constexpr DenseKernels kTable = make_dense_kernels<Neon>(Isa::kNeon, "neon");

}  // namespace

const DenseKernels& dense_kernels_neon() noexcept { return kTable; }

}  // namespace terrace
