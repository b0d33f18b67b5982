// SPDX-License-Identifier: Apache-2.0
#include "sparse/kernels/sparse_impl.h"
#include "sparse/kernels/sparse_tables.h"

namespace terrace {
namespace {

constexpr SparseKernels kTable = {
    .isa = Isa::kAvx2, .name = "avx2", .biased_argmax = biased_argmax<xsimd::avx2>, .pick_q8 = nullptr};

}  // namespace

const SparseKernels& sparse_kernels_avx2() noexcept { return kTable; }

}  // namespace terrace
