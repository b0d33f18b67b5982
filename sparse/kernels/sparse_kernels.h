// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/isa.h"
#include "engine/kernels/dense_kernels.h"

// Kernels that only the sparse layers need, beyond engine/kernels/dense_kernels.h and by the same rules.

namespace terrace {

struct SparseKernels {
  Isa isa;
  const char* name;

  /// Index of the largest z[i] + bias[i], i < n; the first one on ties. A NaN never wins; 0 if nothing is
  /// above -inf. The same index on every ISA.
  std::uint32_t (*biased_argmax)(const float* z, const float* bias, std::size_t n) noexcept;

  /// The decision of a controller in one pass over its int8 rows, without logits in memory:
  ///   picks[b] = biased_argmax over e < block_size of float(<w_r, x>) * (w_scale[r] * x.scale),
  ///              r = b * block_size + e
  /// for n_blocks blocks, with bias[r]; the same picks as dot_q8 and biased_argmax give. Null where an ISA
  /// has no product of bytes that makes it worth while.
  void (*pick_q8)(const std::int8_t* w, std::size_t row_stride, const float* w_scale, const float* bias,
                  const QuantizedRow& x, std::size_t d, std::size_t block_size, std::size_t n_blocks,
                  std::uint32_t* picks) noexcept;
};

/// The table for an available ISA (kScalar always is); an ISA without kernels of its own here gets the next
/// weaker one of its architecture. Throws Error{kUnsupported} otherwise.
const SparseKernels& sparse_kernels(Isa isa);

}  // namespace terrace
