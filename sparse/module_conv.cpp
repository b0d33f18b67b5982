// SPDX-License-Identifier: Apache-2.0
#include "sparse/module_conv.h"

#include <fmt/format.h>

#include "engine/error.h"
#include "engine/linear.h"
#include "sparse/convolve.h"

namespace terrace {

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

void LocallyConvDense::forward(Exec& exec, ConstRows x, const RecurrentSlot& tail, Rows y) const {
  const ConvolutionTask task{this, y};
  convolve(exec, x, tail, {&task, 1});
}

void LocallyConvDense::forward_range(const PreparedRows& windows, std::size_t begin, std::size_t end,
                                     Rows y) const noexcept {
  TERRACE_DCHECK(windows.size() == y.n * n_modules_);
  if (y.stride == d_out() || y.n == 1) {
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
