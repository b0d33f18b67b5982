// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "attention/growing_table.h"
#include "attention/rotary_scaling.h"
#include "attention/row_positions.h"
#include "engine/exec.h"
#include "engine/tensor.h"

namespace terrace {

/// Rotary position embedding: pair j of the channels of each head is rotated by p * base^(-2j / d_head),
/// or by a scaled frequency.
///   half-split:   pairs (j, j + d_head/2)       interleaved:  pairs (2j, 2j + 1)
/// Cosines and sines are computed in double when a position is first used. Needs 4 * d_head bytes per
/// position. Half-split with one head as wide as the model, it is the encoding of Trax's
/// PureLSHSelfAttention. Source: Su et al. 2021.
class Rotary {
 public:
  Rotary() = default;
  /// Throws Error{kBadConfig} unless d_head is even and base > 0, Error{kOutOfMemory}.
  Rotary(std::size_t d_head, std::size_t max_positions, double base = 10000.0, bool interleaved = false,
         const RotaryScaling& scaling = {});

  explicit operator bool() const noexcept { return d_head_ != 0; }

  /// Rotates every head of every row in place: x [n, n_heads * d_head], row t at positions[t]. Angles of
  /// positions from max_positions on are computed again each time.
  void apply(const Exec& exec, Rows x, RowPositions positions) const;

 private:
  /// Cosines, then sines of a position [d_head].
  void angles_of(std::size_t position, float* to) const noexcept;
  void rotate_row(float* x, std::size_t n_heads, const float* of_position) const noexcept;

  std::size_t d_head_ = 0, max_positions_ = 0;
  bool interleaved_ = false;
  std::vector<double> frequency_;  // [d_head/2]
  GrowingTable table_;             // [max_positions][cos: d_head/2, sin: d_head/2]
};

}  // namespace terrace
