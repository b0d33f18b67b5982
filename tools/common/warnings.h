// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/isa.h"
#include "models/model.h"

namespace terrace::tools {

// What is allowed but slower than the user would expect: one line on stderr each, once per process. The
// library itself prints nothing.

/// More threads than cores.
void warn_about_threads(unsigned n_threads);
/// Scalar kernels, on a CPU without AVX2 or NEON or because TERRACE_ISA asks for them.
void warn_about_isa(Isa isa);
/// A model file that does not fit into the free memory.
void warn_about_memory(const Model& model);

}  // namespace terrace::tools
