// SPDX-License-Identifier: Apache-2.0
#include "attention/kernels/attention_neon.h"

namespace terrace {
namespace {

struct Sdot {
  static int32x4_t add(int32x4_t sum, int8x16_t a, int8x16_t b) noexcept { return vdotq_s32(sum, a, b); }
};

struct NeonDot : NeonCommon {
  using Q8 = Bytes<Sdot>;
  using Q4 = HalfBytes<Sdot>;
};

constexpr AttentionKernels kTable = make_attention_kernels<NeonDot>(Isa::kNeonDot, "neondot");

}  // namespace

const AttentionKernels& attention_kernels_neondot() noexcept { return kTable; }

}  // namespace terrace
