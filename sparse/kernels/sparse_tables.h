// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "sparse/kernels/sparse_kernels.h"

// One table per instruction set, each defined in its own file that is compiled with that set's flags.
// Only sparse_dispatch.cpp calls these: the rest of the program asks sparse_kernels(isa).

namespace terrace {

const SparseKernels& sparse_kernels_scalar() noexcept;  // the specification
const SparseKernels& sparse_kernels_avx2() noexcept;
const SparseKernels& sparse_kernels_avx512() noexcept;
const SparseKernels& sparse_kernels_avx512vnni() noexcept;
const SparseKernels& sparse_kernels_neon() noexcept;

}  // namespace terrace
