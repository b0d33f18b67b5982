// SPDX-License-Identifier: Apache-2.0
#include "attention/kernels/attention_avx512vnni.h"

namespace terrace {
namespace {

constexpr AttentionKernels kTable = make_attention_kernels<Avx512Vnni>(Isa::kAvx512Vnni, "avx512vnni");

}  // namespace

const AttentionKernels& attention_kernels_avx512vnni() noexcept { return kTable; }

}  // namespace terrace
