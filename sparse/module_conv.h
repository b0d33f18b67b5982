// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "engine/linear.h"
#include "engine/tensor.h"

namespace terrace {

/// Rows of S modules of C channels, rearranged so that what a convolution sees around module s, `reach`
/// modules to each side and `n_steps` rows back, is one contiguous run: per row [module, zero modules at both
/// ends][step][channel].
class ModuleHistory {
 public:
  /// `tail` holds the n_steps - 1 rows before x (oldest first); it is replaced by the last n_steps - 1 rows
  /// seen. Lives as long as the surrounding Workspace::Scope.
  ModuleHistory(Exec& exec, ConstRows x, std::span<float> tail, std::size_t n_modules, std::size_t n_steps,
                std::size_t reach);

  /// The rows, ready for weights of `dtype`, for windows() to cut.
  PreparedRows prepare(Exec& exec, const DenseKernels& kernels, DType dtype) const {
    return PreparedRows::unpacked(exec, kernels, dtype, rows_);
  }
  /// The S windows of each of the prepared rows for a kernel that sees `kernel_size` <= 2 * reach + 1 modules.
  PreparedRows windows(Exec& exec, const PreparedRows& prepared, std::size_t kernel_size) const;

  std::size_t n_rows() const noexcept { return rows_.n; }

 private:
  ConstRows rows_;  ///< [T, (S + 2 * reach) * run_]
  std::size_t n_modules_ = 0;
  std::size_t reach_ = 0;
  std::size_t run_ = 0;  ///< n_steps * C: floats of one module
};

/// Convolution over modules and time, with one small kernel shared by all modules (Trax `LocallyConvDense`).
///
///   y[t, s*U + o] = b[o] + sum_{j<Km} sum_{i<Kl} sum_c x[t - (Kl-1) + i, (s + j - (Km-1)/2)*C + c] w[o, (j,
///   i, c)]
///
/// Terms before the start or beyond the outer modules are 0 (no wrap). With one module it is a dense layer
/// without taps. Source: Jaszczur et al. 2021, sec. 3.2; reference 4.2. State: the last Kl - 1 input rows,
/// owned by the caller. Cost per call: Km*Kl*C*U weights once; S times as many multiply-adds per row. Any cut
/// of a sequence into calls gives the same bits.
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
  std::size_t bytes_per_token() const noexcept { return weight_.bytes(); }
  /// Floats of state: the rows before the current one.
  std::size_t tail_size() const noexcept { return (n_steps_ - 1) * d_in(); }
  explicit operator bool() const noexcept { return static_cast<bool>(weight_); }

  /// y = layer(tail, x), then the tail moves on. One phase. x and y must not overlap.
  void forward(Exec& exec, ConstRows x, std::span<float> tail, Rows y) const;

  /// Units [begin, end) of every module on the calling thread.
  /// `windows` are those of a ModuleHistory, for this layer's dtype and kernel size.
  void forward_range(const PreparedRows& windows, std::size_t begin, std::size_t end, Rows y) const noexcept;

 private:
  const DenseKernels* kernels_ = nullptr;
  WeightView weight_;
  const float* bias_ = nullptr;
  std::size_t n_modules_ = 0;
  std::size_t kernel_size_ = 1;
  std::size_t n_steps_ = 1;
};

/// One convolution of run_convolutions(). `windows` (see LocallyConvDense::forward_range) may be shared.
struct ConvolutionTask {
  const LocallyConvDense* conv = nullptr;
  PreparedRows* windows = nullptr;
  Rows y;
};

/// Runs convolutions that have equally many windows in one phase. Many windows are packed first; those of one
/// token every thread packs for itself.
void run_convolutions(Exec& exec, std::span<const ConvolutionTask> tasks);

}  // namespace terrace
