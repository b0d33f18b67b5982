// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/dense_avx512vnni.h"
#include "engine/kernels/dense_packed_avx512.h"
#include "engine/kernels/dense_q4_amx.h"
#include "engine/kernels/dense_q8_amx.h"
#include "engine/kernels/dense_split_amx.h"

// Products of many activation rows by tiles; everything else is that of avx512vnni.

namespace terrace {
namespace {

constexpr DenseKernels make_table() noexcept {
  DenseKernels table = make_dense_kernels<Avx512Vnni>(Isa::kAvx512Amx, "avx512amx");
  table.dot_q8 = dot_q8_short;
  table.pack_q8 = pack_rows<0>;
  table.dot_packed_q8 = dot_packed_q8;
  table.pack_q4 = pack_q4;
  table.dot_packed_q4 = dot_packed_q4<PackedQ4>;
  table.pack_split = pack_split;
  table.dot_split_bf16 = dot_split_bf16;
  return table;
}

// Every CPU with AMX so far gains by software prefetch.
constexpr DenseKernels kTable = make_table();

}  // namespace

const DenseKernels& dense_kernels_avx512amx() noexcept { return kTable; }

}  // namespace terrace
