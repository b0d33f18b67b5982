// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/kernels/dense_kernels.h"

// One table per instruction set, each defined in its own file that is compiled with that set's flags.
// Only dense_dispatch.cpp and tests call these: the rest of the program asks dense_kernels(isa).

namespace terrace {

const DenseKernels& dense_kernels_scalar() noexcept;  // the specification
const DenseKernels& dense_kernels_avx2() noexcept;
const DenseKernels& dense_kernels_avxvnni() noexcept;
/// With or without software prefetch in sequential reads; the bits are the same.
const DenseKernels& dense_kernels_avx512(bool prefetch) noexcept;
const DenseKernels& dense_kernels_avx512vnni(bool prefetch) noexcept;
const DenseKernels& dense_kernels_avx512amx() noexcept;
const DenseKernels& dense_kernels_neon() noexcept;
const DenseKernels& dense_kernels_neondot() noexcept;

}  // namespace terrace
