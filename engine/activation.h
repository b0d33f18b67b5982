// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/kernels/dense_kernels.h"

namespace terrace {

/// The nonlinearity of a feed-forward layer.
enum class Activation : std::uint8_t {
  kRelu,      ///< max(x, 0); NaN passes through
  kGelu,      ///< x/2 (1 + erf(x / sqrt 2))
  kFastGelu,  ///< the tanh form
  kSilu,      ///< x * sigmoid(x)
};

/// x = activation(x), element by element, in place.
inline void apply(const DenseKernels& kernels, Activation activation, float* x, std::size_t n) noexcept {
  switch (activation) {
    case Activation::kRelu:
      return kernels.relu(x, n);
    case Activation::kGelu:
      return kernels.gelu(x, n);
    case Activation::kFastGelu:
      return kernels.fast_gelu(x, n);
    case Activation::kSilu:
      return kernels.silu(x, n);
  }
}

}  // namespace terrace
