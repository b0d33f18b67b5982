// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/exec.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/tensor.h"

namespace terrace {

/// Layer normalisation, centred (LayerNorm) or not (Trax center=False, RMSNorm).
///   centred:  y = (x - mean x) / sqrt(var x + eps) * scale + bias     (population variance)
///   else:     y = x / sqrt(mean x^2 + eps) * scale                    (a stored bias is never applied)
/// Source: Trax `LayerNorm`; Zhang & Sennrich 2019 for RMSNorm. Cost: O(d) per row.
class Norm {
 public:
  Norm() = default;
  Norm(const DenseKernels& kernels, std::size_t d, const float* scale, const float* bias, bool center,
       float epsilon)
      : kernels_(&kernels), d_(d), scale_(scale), bias_(bias), center_(center), epsilon_(epsilon) {}

  explicit operator bool() const noexcept { return kernels_ != nullptr; }
  std::size_t width() const noexcept { return d_; }
  const DenseKernels& kernels() const noexcept { return *kernels_; }

  /// y = norm(x), row by row. x and y may be the same memory.
  void forward(Exec& exec, ConstRows x, Rows y) const noexcept {
    const ProfileZone zone(exec.profile, Zone::kNorm);
    exec.for_range(x.n, 1, 4 * d_, [&](std::size_t begin, std::size_t end) {
      for (std::size_t t = begin; t < end; ++t) {
        kernels_->norm(x.row(t), d_, scale_, bias_, center_, epsilon_, y.row(t));
      }
    });
  }

 private:
  const DenseKernels* kernels_ = nullptr;
  std::size_t d_ = 0;
  const float* scale_ = nullptr;
  const float* bias_ = nullptr;
  bool center_ = true;
  float epsilon_ = 1e-6F;
};

}  // namespace terrace
