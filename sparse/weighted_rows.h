// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/linear.h"

namespace terrace {

/// Adds rows of a weight, times factors, to columns [begin, end) of a sum, a few at a time. Rows with factor
/// 0 are not read; a NaN factor counts.
class WeightedRows {
 public:
  WeightedRows(const DenseKernels& kernels, const WeightView& rows, std::size_t begin, std::size_t end,
               float* sum) noexcept
      : kernels_(kernels), w_(rows), begin_(begin), end_(end), sum_(sum) {}
  WeightedRows(const WeightedRows&) = delete;
  WeightedRows& operator=(const WeightedRows&) = delete;
  ~WeightedRows() { flush(); }

  void add(float factor, std::size_t row) noexcept {
    if (factor == 0.0F) return;
    a_[n_] = factor;
    rows_[n_++] = static_cast<std::uint32_t>(row);
    if (n_ == kRowsPerCall) flush();
  }

 private:
  /// Bounds the pointers on the stack.
  static constexpr std::size_t kRowsPerCall = 16;

  void flush() noexcept {
    axpy_rows(kernels_, w_, a_, rows_, n_, begin_, end_, sum_, scratch_a_, scratch_rows_);
    n_ = 0;
  }

  const DenseKernels& kernels_;
  const WeightView& w_;
  std::size_t begin_;
  std::size_t end_;
  float* sum_;
  std::size_t n_ = 0;
  float a_[kRowsPerCall];
  std::uint32_t rows_[kRowsPerCall];
  float scratch_a_[kRowsPerCall];
  const void* scratch_rows_[2 * kRowsPerCall];
};

}  // namespace terrace
