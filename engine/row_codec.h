// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "engine/tensor.h"

namespace terrace {

/// Widens `n` stored elements of one row to f32; `scale` is the row's scales (null for f32 and bf16).
void decode_row(DType dtype, const std::byte* data, const std::byte* scale, std::size_t n,
                float* row) noexcept;

/// Stores one row of `n` finite elements as `dtype`; writes row_bytes(dtype, n) and row_scale_bytes(dtype, n)
/// bytes.
///   bf16   rounds to nearest even
///   q8     scale = max |w| / 127, w to the nearest step
///   q4     per group of 32 the scale that minimises the squared error after its own rounding to bf16; n is a
///   multiple
///          of kQ4Columns
/// Cost: about 20 passes over the row for q4, 2 for the others; not for use inside a token.
void encode_row(DType dtype, const float* row, std::size_t n, std::byte* data, std::byte* scale) noexcept;

}  // namespace terrace
