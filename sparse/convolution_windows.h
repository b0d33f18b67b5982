// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/error.h"
#include "engine/exec.h"
#include "engine/prepared_rows.h"
#include "engine/recurrent_state.h"
#include "engine/tensor.h"
#include "sparse/convolve.h"

// How convolutions over modules and time see their input (convolve.cpp runs them).

namespace terrace {

/// The rows that convolutions over n_steps steps see: those of a call and those before it.
class SeenRows {
 public:
  SeenRows(ConstRows x, const RecurrentSlot& state, const LocallyConvDense& conv) noexcept
      : x_(x), state_(state), tail_(state.now()), n_before_(conv.n_steps() - 1) {
    TERRACE_DCHECK(tail_.size() == n_before_ * x.width);
  }

  std::size_t n_steps() const noexcept { return n_before_ + 1; }
  std::size_t width() const noexcept { return x_.width; }
  /// What row t sees at step i: row t itself at the last one.
  const float* at(std::size_t t, std::size_t i) const noexcept {
    return t + i >= n_before_ ? x_.row(t + i - n_before_) : tail_.data() + (t + i) * x_.width;
  }
  /// The last rows become the tail.
  void move_tail() const noexcept {
    if (state_.leaves_rows()) {
      for (std::size_t t = 0; t + 1 < x_.n; ++t) copy_tail(t, state_.after(t));
    }
    if (x_.n > 0) copy_tail(x_.n - 1, tail_.data());
  }

 private:
  /// The tail after row t. Oldest row first: a row that moves within the tail moves towards its front.
  void copy_tail(std::size_t t, float* to) const noexcept {
    for (std::size_t i = 0; i < n_before_; ++i) std::copy_n(at(t, i + 1), x_.width, to + i * x_.width);
  }

  ConstRows x_;
  RecurrentSlot state_;
  std::span<float> tail_;  // of the state, now
  std::size_t n_before_;
};

/// Whether two convolutions read the same windows.
bool same_windows(const LocallyConvDense& a, const LocallyConvDense& b) noexcept;

/// Rows as the convolutions see them, each [S + 2 * reach modules, zeros at both ends][step][channel], so
/// that what a kernel sees around a module, its window, is contiguous: a module is a run of n_steps pieces.
/// As floats or quantised with one scale per row, or both, as the weights need.
class RunRows {
 public:
  /// Memory for the windows of one convolution.
  struct Windows {
    const float** f32 = nullptr;
    QuantizedRow* q8 = nullptr;
  };

  RunRows(Exec& exec, const SeenRows& seen, std::size_t n_rows, std::span<const ConvolutionTask> tasks);

  std::size_t n_modules() const noexcept { return n_modules_; }
  std::size_t width() const noexcept { return n_runs() * run(); }

  /// Makes row t on the calling thread; to be called once per row. Rows are independent.
  void fill(std::size_t t) const noexcept;
  Windows reserve_windows(Exec& exec) const;
  /// The windows that `conv` reads, of all modules of all rows, not packed; `to` holds them.
  PreparedRows windows(const LocallyConvDense& conv, const Windows& to) const noexcept;
  /// The same before the rows are filled: only the shape.
  PreparedRows unfilled_windows(const LocallyConvDense& conv, const Windows& to) const noexcept;

 private:
  std::size_t n_runs() const noexcept { return n_modules_ + 2 * reach_; }
  std::size_t run() const noexcept { return seen_->n_steps() * n_channels_; }
  void copy(std::size_t t) const noexcept;
  void quantize(std::size_t t) const noexcept;
  /// Writes zeros to the runs outside the modules; returns where the run of the first module begins.
  template <class T>
  T* clear_ends(T* to) const noexcept;

  const SeenRows* seen_;
  const DenseKernels* kernels_;
  std::size_t n_rows_, n_modules_, n_channels_, reach_;
  float* f32_ = nullptr;       // [rows, width] ...
  std::int8_t* q8_ = nullptr;  // ... or quantised, [rows, q8_stride_],
  std::size_t q8_stride_ = 0;
  float* scales_ = nullptr;       // with the scale of each row
  std::int32_t* sums_ = nullptr;  // and the sum of each run [rows, runs]
};

}  // namespace terrace
