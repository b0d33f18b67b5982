// SPDX-License-Identifier: Apache-2.0
#include "sparse/module_dense.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/error.h"

namespace terrace {

LocallyConnectedDense::LocallyConnectedDense(const DenseKernels& kernels, const WeightView& weight,
                                             const float* bias, std::size_t n_modules,
                                             std::size_t kernel_size)
    : kernels_(&kernels),
      weight_(weight),
      bias_(bias),
      n_modules_(n_modules),
      kernel_size_(n_modules == 1 ? 1 : kernel_size) {
  TERRACE_CHECK(
      weight && n_modules > 0 && kernel_size_ % 2 == 1 && weight.rows % n_modules == 0 &&
          weight.cols % kernel_size_ == 0,
      kBadArgument,
      fmt::format("locally connected layer: a weight [{}, {}] does not fit {} modules and a kernel of {} "
                  "modules (odd)",
                  weight.rows, weight.cols, n_modules, kernel_size));
}

void LocallyConnectedDense::forward(Exec& exec, ConstRows x, Rows y) const {
  const Workspace::Scope scope(exec.ws);
  const std::size_t n_units = weight_.rows / n_modules_;
  const std::size_t n_channels = weight_.cols / kernel_size_;
  const std::size_t width = weight_.cols;

  // What each module sees, module by module: the tokens of a module stand together, as its weights want them.
  float* const seen = exec.ws.take<float>(n_modules_ * x.n * width);
  for (std::size_t s = 0; s < n_modules_; ++s) {
    for (std::size_t t = 0; t < x.n; ++t) {
      float* const row = seen + (s * x.n + t) * width;
      for (std::size_t k = 0; k < kernel_size_; ++k) {
        // kernel_size_ may exceed the number of modules: then a module is seen more than once.
        const std::size_t from = (s + k + n_modules_ * kernel_size_ - kernel_size_ / 2) % n_modules_;
        std::copy_n(x.row(t) + from * n_channels, n_channels, row + k * n_channels);
      }
    }
  }
  const PreparedRows rows(exec, *kernels_, weight_.dtype, {seen, n_modules_ * x.n, width, width});

  exec.for_range(weight_.rows, 16, dot_work(weight_.dtype, width, x.n, rows.packed_as()),
                 [&](std::size_t begin, std::size_t end) {
                   for (std::size_t r = begin; r < end;) {
                     const std::size_t module = r / n_units;
                     const std::size_t stop = std::min(end, (module + 1) * n_units);
                     dot_rows(*kernels_, weight_, r, stop, rows.slice(module * x.n, x.n), y.data, y.stride);
                     r = stop;
                   }
                   if (!bias_) return;
                   for (std::size_t t = 0; t < x.n; ++t)
                     kernels_->add(y.row(t) + begin, bias_ + begin, end - begin);
                 });
}

MultModularDense::MultModularDense(const DenseKernels& kernels, const WeightView& gate,
                                   const WeightView& shared, const WeightView& modules, const float* bias)
    : factored_(kernels, gate, shared, nullptr), modules_(kernels, modules, bias, gate.rows, 1) {
  TERRACE_CHECK(
      modules_.d_in() == factored_.d_out(), kBadArgument,
      fmt::format("multiplicative modular layer: the module maps read {} channels, the shared projection "
                  "gives {}",
                  modules_.d_in(), factored_.d_out()));
}

void MultModularDense::forward(Exec& exec, ConstRows x, Rows y) const {
  const Workspace::Scope scope(exec.ws);
  const std::size_t width = factored_.d_out();
  const Rows m{exec.ws.take<float>(x.n * width), x.n, width, width};
  factored_.forward(exec, x, m);
  modules_.forward(exec, m, y);
}

}  // namespace terrace
