// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "engine/isa.h"
#include "models/model.h"

namespace terrace::tools {

/// One line on stderr, once per process however often it is said. The library itself prints nothing.
void warn(const std::string& message);

// What is allowed but slower than the user would expect.

/// More threads than cores.
void warn_about_threads(unsigned n_threads);
/// Scalar kernels, on a CPU without AVX2 or NEON or because TERRACE_ISA asks for them.
void warn_about_isa(Isa isa);
/// A model file that is copied though some of its tensors have no checksum.
void warn_about_checksums(const WeightFile& file);
/// A model file that does not fit into the free memory.
void warn_about_memory(const Model& model);

}  // namespace terrace::tools
