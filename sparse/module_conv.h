// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "engine/exec.h"
#include "engine/prepared_rows.h"
#include "engine/recurrent_state.h"
#include "engine/tensor.h"

namespace terrace {

/// Convolution over modules and time, with one small kernel shared by all modules (Trax `LocallyConvDense`).
///
///   y[t, s*U + o] = b[o] + sum_{j<Km} sum_{i<Kl} sum_{c<C}
///                   x[t - (Kl-1) + i, (s + j - (Km-1)/2)*C + c] w[o, (j, i, c)]
///
/// Terms before the start or beyond the outer modules are 0 (no wrap). With one module it is a dense layer
/// without taps. Source: Jaszczur et al. 2021, sec. 3.2; trax/layers/research/sparsity.py. State: the last
/// Kl - 1 input rows, owned by the caller. Cost per call: Km*Kl*C*U weights once; S times as many
/// multiply-adds per row. Any cut of a sequence into calls gives the same bits.
class LocallyConvDense {
 public:
  LocallyConvDense() = default;
  /// weight [U, Km*Kl*C], bias [U] or null. With n_modules == 1, Km and Kl count as 1.
  /// Throws Error{kBadArgument} if Km is even or the columns do not divide.
  LocallyConvDense(const DenseKernels& kernels, const WeightView& weight, const float* bias,
                   std::size_t n_modules, std::size_t kernel_size, std::size_t n_steps);

  std::size_t d_in() const noexcept { return n_modules_ * (weight_.cols / (kernel_size_ * n_steps_)); }
  std::size_t d_out() const noexcept { return n_modules_ * weight_.rows; }
  std::size_t n_modules() const noexcept { return n_modules_; }
  std::size_t kernel_size() const noexcept { return kernel_size_; }
  std::size_t n_steps() const noexcept { return n_steps_; }
  std::size_t n_units() const noexcept { return weight_.rows; }
  const WeightView& weight() const noexcept { return weight_; }
  const DenseKernels& kernels() const noexcept { return *kernels_; }
  /// How the windows are packed.
  Packs packs() const noexcept { return module_packs_for(*kernels_, weight_.dtype, n_modules_); }
  std::size_t bytes_per_token() const noexcept { return weight_.bytes(); }
  /// Floats of state: the rows before the current one.
  std::size_t tail_size() const noexcept { return (n_steps_ - 1) * d_in(); }
  explicit operator bool() const noexcept { return static_cast<bool>(weight_); }

  /// y = layer(tail, x), then the tail moves on. One phase. x and y must not overlap.
  void forward(Exec& exec, ConstRows x, const RecurrentSlot& tail, Rows y) const;

  /// Units [begin, end) of every module on the calling thread, from the windows of every module of every row.
  /// A window is what a module's kernel sees: per module, per step, its channels.
  void forward_range(const PreparedRows& windows, std::size_t begin, std::size_t end, Rows y) const noexcept;

 private:
  const DenseKernels* kernels_ = nullptr;
  WeightView weight_;
  const float* bias_ = nullptr;
  std::size_t n_modules_ = 0;
  std::size_t kernel_size_ = 1;
  std::size_t n_steps_ = 1;
};

}  // namespace terrace
