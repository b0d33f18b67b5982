// SPDX-License-Identifier: Apache-2.0
#include "attention/kernels/attention_impl.h"
#include "engine/kernels/lanes_avx2.h"

namespace terrace {
namespace {

struct Avx2 : Avx2Lanes {
  static constexpr std::size_t kAccumulators = 8;
};

constexpr AttentionKernels kTable = make_attention_kernels<Avx2>(Isa::kAvx2, "avx2");

}  // namespace

const AttentionKernels& attention_kernels_avx2() noexcept { return kTable; }

}  // namespace terrace
