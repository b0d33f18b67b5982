// SPDX-License-Identifier: Apache-2.0
#include "attention/kernels/attention_impl.h"
#include "engine/kernels/lanes_avx512.h"

namespace terrace {
namespace {

struct Avx512 : Avx512Lanes {
  static constexpr std::size_t kAccumulators = 8;
};

constexpr AttentionKernels kTable = make_attention_kernels<Avx512>(Isa::kAvx512, "avx512");

}  // namespace

const AttentionKernels& attention_kernels_avx512() noexcept { return kTable; }

}  // namespace terrace
