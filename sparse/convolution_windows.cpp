// SPDX-License-Identifier: Apache-2.0
#include "sparse/convolution_windows.h"

#include <numeric>

#include "engine/kernels/dense_kernels.h"

namespace terrace {
namespace {

/// How many modules to each side the convolutions see.
std::size_t reach_of(std::span<const ConvolutionTask> tasks) noexcept {
  std::size_t reach = 0;
  for (const ConvolutionTask& task : tasks) reach = std::max(reach, task.conv->kernel_size() / 2);
  return reach;
}

}  // namespace

bool same_windows(const LocallyConvDense& a, const LocallyConvDense& b) noexcept {
  return a.kernel_size() == b.kernel_size() && a.weight().dtype == b.weight().dtype;
}

RunRows::RunRows(Exec& exec, const SeenRows& seen, std::size_t n_rows, std::span<const ConvolutionTask> tasks)
    : seen_(&seen),
      kernels_(&tasks.front().conv->kernels()),
      n_rows_(n_rows),
      n_modules_(tasks.front().conv->n_modules()),
      n_channels_(seen.width() / n_modules_),
      reach_(reach_of(tasks)) {
  for (const ConvolutionTask& task : tasks) {
    if (!is_quantized(task.conv->weight().dtype)) {
      if (!f32_) f32_ = exec.ws.take<float>(n_rows * width());
    } else if (!q8_) {
      q8_stride_ = width() + kPackColumns;  // kernels may read whole steps
      q8_ = exec.ws.take<std::int8_t>(n_rows * q8_stride_);
      scales_ = exec.ws.take<float>(n_rows);
      sums_ = exec.ws.take<std::int32_t>(n_rows * n_runs());
    }
  }
}

void RunRows::fill(std::size_t t) const noexcept {
  if (f32_) copy(t);
  if (q8_) quantize(t);
}

template <class T>
T* RunRows::clear_ends(T* to) const noexcept {
  T* const first = to + reach_ * run();
  std::fill(to, first, T{0});
  std::fill_n(first + n_modules_ * run(), reach_ * run(), T{0});
  return first;
}

void RunRows::copy(std::size_t t) const noexcept {
  float* const first = clear_ends(f32_ + t * width());
  for (std::size_t i = 0; i < seen_->n_steps(); ++i) {
    for (std::size_t s = 0; s < n_modules_; ++s) {
      std::copy_n(seen_->at(t, i) + s * n_channels_, n_channels_, first + s * run() + i * n_channels_);
    }
  }
}

void RunRows::quantize(std::size_t t) const noexcept {
  float largest = 0.0F;
  for (std::size_t i = 0; i < seen_->n_steps(); ++i) {
    largest = std::max(largest, kernels_->largest_magnitude(seen_->at(t, i), seen_->width()));
  }
  scales_[t] = scale_of(largest);
  std::int32_t* const sums = sums_ + t * n_runs();
  std::fill_n(sums, n_runs(), 0);
  std::int8_t* const first = clear_ends(q8_ + t * q8_stride_);
  for (std::size_t i = 0; i < seen_->n_steps(); ++i) {
    kernels_->quantize_runs(seen_->at(t, i), n_modules_, n_channels_, scales_[t], first + i * n_channels_,
                            run(), sums + reach_);
  }
}

RunRows::Windows RunRows::reserve_windows(Exec& exec) const {
  const std::size_t n = n_rows_ * n_modules_;
  return {f32_ ? exec.ws.take<const float*>(n) : nullptr, q8_ ? exec.ws.take<QuantizedRow>(n) : nullptr};
}

PreparedRows RunRows::unfilled_windows(const LocallyConvDense& conv, const Windows& to) const noexcept {
  const std::size_t n = n_rows_ * n_modules_, width_of_one = conv.weight().cols;
  return is_quantized(conv.weight().dtype) ? PreparedRows::of(to.q8, n, width_of_one)
                                           : PreparedRows::of(to.f32, n, width_of_one);
}

PreparedRows RunRows::windows(const LocallyConvDense& conv, const Windows& to) const noexcept {
  const std::size_t n_seen = conv.kernel_size(), first = reach_ - n_seen / 2;
  for (std::size_t i = 0; i < n_rows_ * n_modules_; ++i) {
    const std::size_t t = i / n_modules_, r = first + i % n_modules_;
    if (!is_quantized(conv.weight().dtype)) {
      to.f32[i] = f32_ + t * width() + r * run();
      continue;
    }
    const std::int32_t* const sums = sums_ + t * n_runs() + r;
    to.q8[i] = {q8_ + t * q8_stride_ + r * run(), scales_[t], std::accumulate(sums, sums + n_seen, 0)};
  }
  return unfilled_windows(conv, to);
}

}  // namespace terrace
