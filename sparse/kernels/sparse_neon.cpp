// SPDX-License-Identifier: Apache-2.0
#include "sparse/kernels/sparse_impl.h"
#include "sparse/kernels/sparse_tables.h"

namespace terrace {
namespace {

constexpr SparseKernels kTable = {
    .isa = Isa::kNeon, .name = "neon", .biased_argmax = biased_argmax<xsimd::neon64>, .pick_q8 = nullptr};

}  // namespace

const SparseKernels& sparse_kernels_neon() noexcept { return kTable; }

}  // namespace terrace
