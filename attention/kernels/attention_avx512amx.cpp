// SPDX-License-Identifier: Apache-2.0
#include "attention/kernels/attend_page_q8_amx.h"
#include "attention/kernels/attention_avx512vnni.h"

// q8 pages for many query rows by tiles; everything else is that of avx512vnni.

namespace terrace {
namespace {

constexpr AttentionKernels make_table() noexcept {
  AttentionKernels table = make_attention_kernels<Avx512Vnni>(Isa::kAvx512Amx, "avx512amx");
  table.attend_page_q8 = attend_page_q8_by_tiles<Avx512Vnni>;
  return table;
}

constexpr AttentionKernels kTable = make_table();

}  // namespace

const AttentionKernels& attention_kernels_avx512amx() noexcept { return kTable; }

}  // namespace terrace
