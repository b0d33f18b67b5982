// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "engine/exec.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/tensor.h"

namespace terrace {

/// y ~ weight x + bias.
struct LinearFit {
  std::vector<float> weight;  ///< [outputs, inputs]
  std::vector<float> bias;    ///< [outputs]
};

/// The linear map from inputs to outputs that minimises the sum of squared errors over all samples plus
///   lambda * mean of x^2 * n_samples * |weight|^2,
/// which keeps it finite where the samples say nothing. x [inputs, n] and y [outputs, n] hold the samples in
/// columns, so that sums over them are dot products. Cost: (inputs + outputs) * inputs * n multiply-adds and
/// a Cholesky factorisation in double.
LinearFit fit_linear(Exec& exec, const DenseKernels& kernels, ConstRows x, ConstRows y, double lambda);

}  // namespace terrace
