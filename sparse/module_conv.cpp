// SPDX-License-Identifier: Apache-2.0
#include "sparse/module_conv.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/error.h"

namespace terrace {

ModuleHistory::ModuleHistory(Exec& exec, ConstRows x, std::span<float> tail, std::size_t n_modules,
                             std::size_t n_steps, std::size_t reach)
    : n_modules_(n_modules), reach_(reach), run_(n_steps * (x.width / n_modules)) {
  const std::size_t n_channels = x.width / n_modules;
  const std::size_t n_before = n_steps - 1;
  TERRACE_DCHECK(tail.size() == n_before * x.width);
  // The input row `back` rows before row t, which may be one of an earlier call.
  const auto input = [&](std::size_t t, std::size_t back) {
    return t >= back ? x.row(t - back) : tail.data() + (n_before + t - back) * x.width;
  };

  const std::size_t width = (n_modules + 2 * reach) * run_;
  float* const rows = exec.ws.take<float>(x.n * width);
  exec.for_range(x.n, 1, width * sizeof(float), [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) {
      float* const row = rows + t * width;
      std::fill_n(row, reach * run_, 0.0F);
      std::fill_n(row + width - reach * run_, reach * run_, 0.0F);
      for (std::size_t i = 0; i < n_steps; ++i) {
        const float* source = input(t, n_before - i);
        float* target = row + reach * run_ + i * n_channels;
        for (std::size_t s = 0; s < n_modules; ++s, source += n_channels, target += run_) {
          std::copy_n(source, n_channels, target);
        }
      }
    }
  });
  rows_ = {rows, x.n, width, width};

  // Oldest row first: a row that moves within the tail moves towards its front.
  for (std::size_t i = 0; i < n_before && x.n > 0; ++i) {
    std::copy_n(input(x.n - 1, n_before - 1 - i), x.width, tail.data() + i * x.width);
  }
}

PreparedRows ModuleHistory::windows(Exec& exec, const DenseKernels& kernels, DType dtype,
                                    std::size_t kernel_size) const {
  TERRACE_DCHECK(kernel_size % 2 == 1 && kernel_size <= 2 * reach_ + 1);
  const std::size_t unseen = (reach_ - kernel_size / 2) * run_;
  const ConstRows seen(rows_.data + unseen, rows_.n, rows_.width - 2 * unseen, rows_.stride);
  return PreparedRows::windows(exec, kernels, dtype, seen, n_modules_, run_, kernel_size * run_);
}

LocallyConvDense::LocallyConvDense(const DenseKernels& kernels, const WeightView& weight, const float* bias,
                                   std::size_t n_modules, std::size_t kernel_size, std::size_t n_steps)
    : kernels_(&kernels),
      weight_(weight),
      bias_(bias),
      n_modules_(n_modules),
      kernel_size_(n_modules == 1 ? 1 : kernel_size),
      n_steps_(n_modules == 1 ? 1 : n_steps) {
  TERRACE_CHECK(
      weight && n_modules > 0 && kernel_size_ % 2 == 1 && n_steps_ > 0 &&
          weight.cols % (kernel_size_ * n_steps_) == 0,
      kBadArgument,
      fmt::format("module convolution: a weight [{}, {}] does not fit {} modules and a kernel of {} modules "
                  "(odd) x {} steps",
                  weight.rows, weight.cols, n_modules, kernel_size, n_steps));
}

void LocallyConvDense::forward(Exec& exec, ConstRows x, std::span<float> tail, Rows y) const {
  const Workspace::Scope scope(exec.ws);
  const ModuleHistory history(exec, x, tail, n_modules_, n_steps_, kernel_size_ / 2);
  const PreparedRows windows = history.windows(exec, *kernels_, weight_.dtype, kernel_size_);
  exec.for_range(n_units(), kPackRows, work_per_unit(x.n),
                 [&](std::size_t begin, std::size_t end) { forward_range(windows, begin, end, y); });
}

void LocallyConvDense::forward_range(const PreparedRows& windows, std::size_t begin, std::size_t end,
                                     Rows y) const noexcept {
  const std::size_t width = d_out();
  TERRACE_DCHECK(windows.size() == y.n * n_modules_);
  if (y.stride == width || y.n == 1) {
    dot_rows(*kernels_, weight_, begin, end, windows, y.data, n_units());
  } else {
    for (std::size_t t = 0; t < y.n; ++t) {
      dot_rows(*kernels_, weight_, begin, end, windows.slice(t * n_modules_, n_modules_), y.row(t),
               n_units());
    }
  }
  if (!bias_) return;
  for (std::size_t t = 0; t < y.n; ++t) {
    for (std::size_t s = 0; s < n_modules_; ++s) {
      kernels_->add(y.row(t) + s * n_units() + begin, bias_ + begin, end - begin);
    }
  }
}

}  // namespace terrace
