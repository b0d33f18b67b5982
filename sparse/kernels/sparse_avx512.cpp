// SPDX-License-Identifier: Apache-2.0
#include "sparse/kernels/sparse_avx512.h"

#include "sparse/kernels/sparse_tables.h"

namespace terrace {
namespace {

constexpr SparseKernels kTable = {
    .isa = Isa::kAvx512, .name = "avx512", .biased_argmax = biased_argmax, .pick_q8 = nullptr};

}  // namespace

const SparseKernels& sparse_kernels_avx512() noexcept { return kTable; }

}  // namespace terrace
