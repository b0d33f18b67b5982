// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/dense_neon.h"

namespace terrace {
namespace {

struct Sdot {
  static int32x4_t add(int32x4_t sum, int8x16_t w, int8x16_t x) noexcept { return vdotq_s32(sum, w, x); }
};

struct NeonDot : NeonCommon {
  using Q8 = Quantized<Sdot>;
  using Q4 = FourBit<Sdot>;
};

constexpr DenseKernels kTable = make_dense_kernels<NeonDot>(Isa::kNeonDot, "neondot");

}  // namespace

const DenseKernels& dense_kernels_neondot() noexcept { return kTable; }

}  // namespace terrace
