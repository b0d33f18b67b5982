// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/linear.h"
#include "sparse/kernels/sparse_kernels.h"

namespace terrace {

/// Feed-forward layer of E experts of which a token uses one: Trax `BlockSparseFF` and `SwitchSparseFF`.
///
///   e = argmax(router x)                     first index on ties; a NaN logit never wins
///   h = w1_e x;   Switch: h *= softmax(router x)[e]
///   y = bias + w2_e relu(h)
///
/// Source: reference 5.3; Fedus et al. 2021 for Switch. Weights: units [F, 2, d] (w1 row, then w2 row);
/// expert e owns units e*F/E .. (e+1)*F/E - 1. Cost per token: E*d + up to 2*F/E*d weights.
class BlockFfn {
 public:
  BlockFfn() = default;
  /// router [E, d], units [2F, d], bias [d] or null. Throws Error{kBadArgument} if the shapes disagree.
  BlockFfn(const DenseKernels& kernels, const WeightView& router, const WeightView& units, const float* bias,
           bool multiply_by_router);

  std::size_t d_model() const noexcept { return units_.cols; }
  std::size_t d_ff() const noexcept { return units_.rows / 2; }
  std::size_t n_experts() const noexcept { return router_.d_out(); }
  std::size_t bytes_per_token() const noexcept;

  /// y = layer(x). x and y must not overlap. `experts`, if not null, receives the expert of each row.
  void forward(Exec& exec, ConstRows x, Rows y, std::uint32_t* experts = nullptr) const;

 private:
  const DenseKernels* kernels_ = nullptr;
  const SparseKernels* sparse_ = nullptr;
  Linear router_;
  WeightView units_;
  const float* bias_ = nullptr;
  bool multiply_by_router_ = false;
};

}  // namespace terrace
