// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/tensor.h"

namespace terrace {

// A scale is never a denormal number, which the engine's threads flush to zero: rows (groups) of weights so
// small that they would need one, below 1e-36 or so, become zeros with scale +0.

/// Rounds one row of weights to 8 bits: scale = largest |w| / 127, q = round(w / scale), ties to even.
/// Clipping the extremes to refine the rest gains next to nothing at 8 bits (tests/engine/quantize_test.cpp).
/// A row of zeros has scale 0. `q` [w.size()]; returns the scale. Weights must be finite.
float quantize_row_q8(std::span<const float> w, std::int8_t* q) noexcept;

/// Rounds one row to 4 bits in groups of kQ4Group with a bf16 scale each (docs/model-file.md gives the
/// nibbles' places). The scale, of either sign, is the one with the least sum of squared errors among 42 that
/// put the group's largest value at or near an end of -8..7, refined by least squares; the first on ties. The
/// error is within 1 % of the least that any bf16 scale gives (quantize_test.cpp tries them all).
/// `w` is a multiple of kQ4Columns long; `q` [w.size() / 2], `scale` [w.size() / kQ4Group]. Weights must be
/// finite.
void quantize_row_q4(std::span<const float> w, std::uint8_t* q, std::uint16_t* scale) noexcept;

/// Stores one row `w` in any dtype at `data` [row_bytes(dtype, w.size())] and `scale`
/// [row_scale_bytes(dtype, w.size())].
void store_row(DType dtype, std::span<const float> w, std::byte* data, std::byte* scale) noexcept;

}  // namespace terrace
