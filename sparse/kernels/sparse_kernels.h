// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/isa.h"

// Kernels that only the sparse layers need, beyond engine/kernels/dense_kernels.h and by the same rules.

namespace terrace {

struct SparseKernels {
  Isa isa;
  const char* name;

  /// Index of the largest z[i] + bias[i], i < n; the first one on ties. A NaN never wins; 0 if nothing is
  /// above -inf. The same index on every ISA.
  std::uint32_t (*biased_argmax)(const float* z, const float* bias, std::size_t n) noexcept;
};

/// The table for an available ISA; kScalar always is. An ISA without kernels of its own here gets the best of
/// its architecture below it. Throws Error{kUnsupported} otherwise.
const SparseKernels& sparse_kernels(Isa isa);

}  // namespace terrace
