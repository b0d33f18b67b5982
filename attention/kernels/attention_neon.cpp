// SPDX-License-Identifier: Apache-2.0
#include "attention/kernels/attention_impl.h"
#include "engine/kernels/lanes_neon.h"

namespace terrace {
namespace {

struct Neon : NeonLanes {
  static constexpr std::size_t kAccumulators = 16;
};

constexpr AttentionKernels kTable = make_attention_kernels<Neon>(Isa::kNeon, "neon");

}  // namespace

const AttentionKernels& attention_kernels_neon() noexcept { return kTable; }

}  // namespace terrace
