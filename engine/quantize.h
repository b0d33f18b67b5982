// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/tensor.h"

namespace terrace {

/// Rounds one row of weights to 8 bits: scale = largest |w| / 127, q = round(w / scale), ties to even. A row
/// of zeros has scale 0. `q` [w.size()]; returns the scale. Weights must be finite.
float quantize_row_q8(std::span<const float> w, std::int8_t* q) noexcept;

/// Rounds one row to 4 bits in groups of kQ4Group with a bf16 scale each (docs/model-file.md gives the
/// nibbles' places). The scale is the best of a few that put the group's largest value at or near an end of
/// -8..7: the one with the least sum of squared errors, the first one among equals. `w` is a multiple of
/// kQ4Columns long; `q` [w.size() / 2], `scale` [w.size() / kQ4Group]. Weights must be finite.
void quantize_row_q4(std::span<const float> w, std::uint8_t* q, std::uint16_t* scale) noexcept;

/// One row of `w` in any dtype to `data` [row_bytes(dtype, w.size())] and `scale` [row_scale_bytes(dtype,
/// w.size())].
void store_row(DType dtype, std::span<const float> w, std::byte* data, std::byte* scale) noexcept;

}  // namespace terrace
