// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "sparse/controller.h"

namespace terrace {

/// Sparse feed-forward layer: in each block of `block_size` units only the one that the controller picks is
/// used, so a token reads 2 * n_blocks rows of weights instead of 2 * d_ff.
///
///   a[b] = relu(w1[b, pick b] . x)  (* the controller's softmax at the pick, when multiply_by_controller)
///   y    = bias + sum_b a[b] w2[b, pick b]
///
/// Source: Jaszczur et al. 2021, "Sparse is Enough in Scaling Transformers", sec. 3.1; Trax `SparseFF`.
/// Weights: units [F, 2, d]: unit block * N + element is its w1 row, then its w2 row, one contiguous run.
/// A width m uses blocks 0..m/N-1; picks do not depend on it. Reduction order: blocks in order within a group
/// of UnitSums::group_of(F/N) blocks, groups in a tree (0 + 1, 2 + 3, ...; pairs of those; and so on; one that
/// has no partner goes up as it is), bias last. It depends on the width and N only, so any number of rows per
/// call and of threads gives the same bits. Cost per token: r*d + m*r (controller) + up to 2*m/N*d weights;
/// the w2 row of a zero activation is not read.
class SparseFfn {
 public:
  SparseFfn() = default;
  /// units: [2F, d], rows as above; bias [d] or null. `rows_on_demand`: units lie in a mapped file that does
  /// not fit into memory; picked rows are requested from the disk, many at a time, before the first one is
  /// waited for. Throws Error{kBadArgument} if the shapes disagree.
  SparseFfn(const DenseKernels& kernels, const Controller& controller, const WeightView& units,
            const float* bias, bool multiply_by_controller, bool rows_on_demand = false);

  std::size_t d_model() const noexcept { return units_.cols; }
  std::size_t d_ff() const noexcept { return units_.rows / 2; }
  std::size_t block_size() const noexcept { return controller_.block_size(); }
  std::size_t n_blocks() const noexcept { return d_ff() / block_size(); }
  const Controller& controller() const noexcept { return controller_; }
  /// Bytes of weights that one token reads at this width when no activation is zero.
  std::size_t bytes_per_token(std::size_t width) const noexcept;

  /// y = layer(x) with the first `width` units, a multiple of block_size in 1..d_ff. x and y must not
  /// overlap. `active_units`, if not null, receives the chosen units, [x.n, width / block_size], ascending.
  /// `beside`, if given with one row x, is run by the leader while others multiply with controller.down
  /// (Linear::forward_beside).
  void forward(Exec& exec, ConstRows x, Rows y, std::size_t width, std::uint32_t* active_units = nullptr,
               TaskRef beside = {}) const;
  void forward(Exec& exec, ConstRows x, Rows y) const { forward(exec, x, y, d_ff()); }

 private:
  struct Pass;

  void forward_batch(Exec& exec, ConstRows x, Rows y, std::size_t n_blocks, std::uint32_t* active_units,
                     TaskRef beside) const;
  void choose(const Pass& pass, std::size_t group, float* logits) const noexcept;
  void activate(const Pass& pass, std::size_t group) const noexcept;
  void add_up(const Pass& pass, std::size_t group) const noexcept;

  const DenseKernels* kernels_ = nullptr;
  Controller controller_;
  WeightView units_;
  const float* bias_ = nullptr;
  bool multiply_by_controller_ = false;
  bool rows_on_demand_ = false;
  std::size_t blocks_per_group_ = 0;
};

}  // namespace terrace
