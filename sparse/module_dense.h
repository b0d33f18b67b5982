// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "engine/linear.h"
#include "sparse/factored_dense.h"

namespace terrace {

/// A dense map per module that sees `kernel_size` neighbouring modules, circularly (Trax
/// `LocallyConnectedDense`).
///
///   y[s*U + o] = b[s*U + o] + sum_k sum_c x[((s + k - (Km-1)/2) mod S)*C + c] w[s*U + o, (k, c)]
///
/// Cost per call: S*U*Km*C weights once. No state.
class LocallyConnectedDense {
 public:
  LocallyConnectedDense() = default;
  /// weight [S*U, Km*C], bias [S*U] or null. With n_modules == 1, Km counts as 1.
  /// Throws Error{kBadArgument} if Km is even or rows or columns do not divide.
  LocallyConnectedDense(const DenseKernels& kernels, const WeightView& weight, const float* bias,
                        std::size_t n_modules, std::size_t kernel_size);

  std::size_t d_in() const noexcept { return n_modules_ * (weight_.cols / kernel_size_); }
  std::size_t d_out() const noexcept { return weight_.rows; }
  std::size_t bytes_per_token() const noexcept { return weight_.bytes(); }

  /// y = layer(x); one phase. x and y must not overlap.
  void forward(Exec& exec, ConstRows x, Rows y) const;

 private:
  const DenseKernels* kernels_ = nullptr;
  WeightView weight_;
  const float* bias_ = nullptr;
  std::size_t n_modules_ = 0;
  std::size_t kernel_size_ = 1;
};

/// FactoredDense without bias, followed by a dense map inside each module (Trax
/// `MultiplicativeModularSparseDense`).
///
///   y[s*M + o] = b[s*M + o] + sum_q modules[s, o, q] sum_i shared[q, i] gate[s, i] x[i]
///
/// Cost per call: S*d + M*d + S*M^2 weights once. No state.
class MultModularDense {
 public:
  MultModularDense() = default;
  /// gate [S, d_in], shared [M, d_in], modules [S*M, M], bias [S*M] or null. Throws Error{kBadArgument}.
  MultModularDense(const DenseKernels& kernels, const WeightView& gate, const WeightView& shared,
                   const WeightView& modules, const float* bias);

  std::size_t d_in() const noexcept { return factored_.d_in(); }
  std::size_t d_out() const noexcept { return modules_.d_out(); }
  std::size_t bytes_per_token() const noexcept {
    return factored_.bytes_per_token() + modules_.bytes_per_token();
  }

  /// y = layer(x); three phases. x and y must not overlap.
  void forward(Exec& exec, ConstRows x, Rows y) const;

 private:
  FactoredDense factored_;
  LocallyConnectedDense modules_;
};

}  // namespace terrace
