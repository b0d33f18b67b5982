// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "engine/activation.h"
#include "engine/linear.h"

namespace terrace {

/// Dense feed-forward layer with any activation, plain or gated, at any nested width.
///
///   plain:  y = w2 act(w1 x + b1) + b2
///   gated:  y = w2 (act(gate x) * (w1 x + b1)) + b2          (GLU family; Shazeer 2020)
///
/// A width m < d_ff uses units 0..m-1: rows of w1 and gate, columns of w2; the output bias is never sliced.
/// Cost per call: (2 or 3) * m * d_model weights once, whatever the number of rows in x. Two phases.
class FeedForward {
 public:
  FeedForward() = default;
  /// w1 [F, d], w2 [d, F], gate [F, d] or empty. Throws Error{kBadArgument} if the shapes disagree.
  FeedForward(const Linear& w1, const Linear& w2, const Linear& gate, Activation activation);

  std::size_t d_model() const noexcept { return w1_.d_in(); }
  std::size_t d_ff() const noexcept { return w1_.d_out(); }
  bool gated() const noexcept { return static_cast<bool>(gate_); }
  /// Bytes of weights that one call at this width reads.
  std::size_t bytes_per_token(std::size_t width) const noexcept;

  /// y = layer(x) with the first `width` units (1..d_ff; a multiple of 64 if w2 is q4). x and y must not
  /// overlap.
  void forward(Exec& exec, ConstRows x, Rows y, std::size_t width) const;
  void forward(Exec& exec, ConstRows x, Rows y) const { forward(exec, x, y, d_ff()); }

 private:
  Linear w1_;
  Linear w2_;
  Linear gate_;
  Activation activation_ = Activation::kRelu;
};

}  // namespace terrace
