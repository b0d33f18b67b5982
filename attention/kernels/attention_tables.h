// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attention/kernels/attention_kernels.h"

// One table per instruction set, each defined in its own file that is compiled with that set's flags.
// Only attention_dispatch.cpp calls these: the rest of the program asks attention_kernels(isa).

namespace terrace {

const AttentionKernels& attention_kernels_scalar() noexcept;  // the specification
const AttentionKernels& attention_kernels_avx2() noexcept;
const AttentionKernels& attention_kernels_avxvnni() noexcept;
const AttentionKernels& attention_kernels_avx512() noexcept;
const AttentionKernels& attention_kernels_avx512vnni() noexcept;
const AttentionKernels& attention_kernels_avx512amx() noexcept;
const AttentionKernels& attention_kernels_neon() noexcept;
const AttentionKernels& attention_kernels_neondot() noexcept;

}  // namespace terrace
