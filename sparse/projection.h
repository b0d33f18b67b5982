// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <variant>

#include "engine/largest.h"
#include "engine/linear.h"
#include "sparse/factored_dense.h"
#include "sparse/module_conv.h"
#include "sparse/module_dense.h"

namespace terrace {

/// Dense map through a bottleneck: y = up(down x), both with bias (Trax `LowRankDense`).
class LowRankDense {
 public:
  LowRankDense() = default;
  /// Throws Error{kBadArgument} if down.d_out() != up.d_in().
  LowRankDense(const Linear& down, const Linear& up);

  std::size_t d_in() const noexcept { return down_.d_in(); }
  std::size_t d_out() const noexcept { return up_.d_out(); }
  std::size_t bytes_per_token() const noexcept { return down_.weight().bytes() + up_.weight().bytes(); }

  void forward(Exec& exec, ConstRows x, Rows y) const;
  /// The largest element of y, for one row x. y is not written anywhere.
  Largest largest(Exec& exec, ConstRows x) const;

 private:
  Linear down_;
  Linear up_;
};

/// Any stateless linear map of docs/model-file.md ("A projection"): the q, k, v and out parts of the
/// attention variants and the output layer.
class Projection {
 public:
  /// A LocallyConvDense in here has n_steps == 1.
  using Map = std::variant<Linear, FactoredDense, MultModularDense, LocallyConvDense, LocallyConnectedDense,
                           LowRankDense>;

  Projection() = default;
  /// Throws Error{kBadArgument} for a convolution over time.
  explicit Projection(const Map& map);

  std::size_t d_in() const noexcept { return d_in_; }
  std::size_t d_out() const noexcept { return d_out_; }
  /// Bytes of weights that one call reads.
  std::size_t bytes_per_token() const noexcept { return bytes_per_token_; }
  /// The map, for callers that fuse or specialise.
  const Map& map() const noexcept { return map_; }

  /// y = map(x). x and y must not overlap.
  void forward(Exec& exec, ConstRows x, Rows y) const;
  /// The largest element of y, for one row x. Maps that end in rows of weights, as the output layers of all
  /// presets do, do not write y anywhere; others write it to the workspace.
  Largest largest(Exec& exec, ConstRows x) const;

 private:
  Map map_;
  std::size_t d_in_ = 0;
  std::size_t d_out_ = 0;
  std::size_t bytes_per_token_ = 0;
};

}  // namespace terrace
