// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/exec.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/largest.h"
#include "engine/prepared_rows.h"
#include "engine/task_ref.h"
#include "engine/tensor.h"

namespace terrace {

/// y[t * y_stride + r] = <w_r, x_t> for rows [begin, end) of `w` on the calling thread: the body of a phase.
void dot_rows(const DenseKernels& kernels, const WeightView& w, std::size_t begin, std::size_t end,
              const PreparedRows& x, float* y, std::size_t y_stride) noexcept;

/// y[k] = <w_r, x> for the n rows r = rows[k] of `w` and the one row of `x`; bits of dot_rows().
/// `scratch_scales` holds n floats, `scratch_rows` 2n pointers.
void dot_gathered(const DenseKernels& kernels, const WeightView& w, const std::uint32_t* rows, std::size_t n,
                  const PreparedRows& x, float* y, float* scratch_scales, const void** scratch_rows) noexcept;

/// y_i += sum_k a[k] * row_k, columns [begin, end) of rows given by index `rows[k]` of `w`.
/// `scratch_a` holds n floats (scaled coefficients), `scratch_rows` 2n pointers; begin is a multiple of 64.
void axpy_rows(const DenseKernels& kernels, const WeightView& w, const float* a, const std::uint32_t* rows,
               std::size_t n, std::size_t begin, std::size_t end, float* y, float* scratch_a,
               const void** scratch_rows) noexcept;

/// y[i] = x[i] * w[r, i] over the columns of `w`. x and y must not overlap.
void multiply_row(const DenseKernels& kernels, const WeightView& w, std::size_t r, const float* x,
                  float* y) noexcept;
/// The same; returns the largest magnitude of y.
float multiply_row_and_measure(const DenseKernels& kernels, const WeightView& w, std::size_t r,
                               const float* x, float* y) noexcept;

/// Widens row `r` of `w` (its first cols elements) to f32: the embedding lookup.
void widen_row(const DenseKernels& kernels, const WeightView& w, std::size_t r, float* y) noexcept;

/// A linear map y = W x + b with any weight dtype.
/// Cost per call: every byte of W once, whatever the number of rows in x.
class Linear {
 public:
  Linear() = default;
  /// `bias` (w.rows floats) may be null.
  Linear(const DenseKernels& kernels, const WeightView& w, const float* bias)
      : kernels_(&kernels), w_(w), bias_(bias) {}

  std::size_t d_in() const noexcept { return w_.cols; }
  std::size_t d_out() const noexcept { return w_.rows; }
  const WeightView& weight() const noexcept { return w_; }
  const float* bias() const noexcept { return bias_; }
  const DenseKernels& kernels() const noexcept { return *kernels_; }
  explicit operator bool() const noexcept { return static_cast<bool>(w_); }

  /// y = W x + b; one phase. x and y must not overlap.
  void forward(Exec& exec, ConstRows x, Rows y) const;
  void forward(Exec& exec, const PreparedRows& x, Rows y) const;
  /// y = W x + b, in one phase with a task of the leader that takes about as long and neither opens a phase
  /// nor touches x and y: other threads multiply meanwhile. Without them, or below kMinWorkPerChunk, both
  /// are done one after the other.
  void forward_beside(Exec& exec, TaskRef leaders, const PreparedRows& x, Rows y) const;
  /// Whether forward_beside() opens a phase for `work`, in bytes or multiply-adds.
  static constexpr bool worth_a_phase_beside(std::size_t work, std::size_t n_threads) noexcept {
    return n_threads > 1 && work >= Exec::kMinWorkPerChunk;
  }
  /// The largest element of y, for one row x; one phase. y is not written anywhere.
  Largest largest(Exec& exec, ConstRows x) const;
  /// Rows [begin, end) of the map on the calling thread; for phases that fuse several maps.
  void forward_range(const PreparedRows& x, std::size_t begin, std::size_t end, Rows y) const noexcept;

 private:
  const DenseKernels* kernels_ = nullptr;
  WeightView w_;
  const float* bias_ = nullptr;
};

}  // namespace terrace
