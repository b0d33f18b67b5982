// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "engine/linear.h"
#include "engine/norm.h"
#include "engine/recurrent_state.h"

namespace terrace {

/// Simple recurrent unit: a gated running mean of its input, with a highway around it.
///
///   [r | f | u] = W x_t + b          thirds of W's rows; r and f through the sigmoid, u linear
///   c_t = f c_{t-1} + u (1 - f)      c_0 = 0
///   h_t = c_t r + x_t (1 - r) sqrt(3)
///
/// Source: Lei et al. 2018; Trax `SRU` (no activation on c). Cost: 3 s^2 weights once per call, O(s) state
/// per step.
class SruCell {
 public:
  /// `gates` is [3s, s] with its bias. Throws Error{kBadArgument} if d_out != 3 * d_in.
  explicit SruCell(const Linear& gates);

  std::size_t width() const noexcept { return gates_.d_in(); }
  std::size_t bytes_per_token() const noexcept { return gates_.weight().bytes(); }

  /// h = cell(x), oldest row first. `c` [s] is read and left at the state after the last row. x and h may be
  /// equal.
  void forward(Exec& exec, ConstRows x, const RecurrentSlot& c, Rows h) const;

 private:
  Linear gates_;
};

/// SRU path beside a feed-forward layer: out(SRU_k(... SRU_1(in(norm x)))), added to what the other path
/// gave. It reads the same block input as the feed-forward layer, with a norm of its own. Source: Trax,
/// `ff_use_sru` in trax/models/research/configurable_transformer.py.
class SruBranch {
 public:
  /// Reserves one cell state per SRU in `layout`. Throws Error{kBadArgument} if the widths disagree.
  SruBranch(const Norm& norm, const Linear& in, std::vector<SruCell> cells, const Linear& out,
            RecurrentLayout& layout);

  std::size_t bytes_per_token() const noexcept;

  /// y = branch(x), row by row. `recurrent` is the session's recurrent block. x and y must not overlap.
  void forward(Exec& exec, ConstRows x, const RecurrentBlock& recurrent, Rows y) const;
  /// y += branch(x).
  void forward_add(Exec& exec, ConstRows x, const RecurrentBlock& recurrent, Rows y) const;

 private:
  Norm norm_;
  Linear in_;
  std::vector<SruCell> cells_;
  Linear out_;
  StateSlot state_;  ///< cell states, one after the other
};

}  // namespace terrace
