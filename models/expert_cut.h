// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "models/dense_block.h"
#include "models/moefication.h"

namespace terrace {

/// How a dense layer is cut into experts: everything of ExpertFfn that is not a weight of the layer.
struct ExpertCut {
  std::vector<std::uint32_t> units;  ///< of the dense layer, expert by expert
  std::vector<float> router;         ///< [E, d]
  std::vector<float> router_bias;    ///< [E]
  std::vector<float> offsets;        ///< [E, d]
  std::vector<float> bias;           ///< [d], to be added to that of the layer
  MoefiedBlock lost;
};

/// From the weights alone; offsets and bias are 0.
ExpertCut cut_by_weights(Exec& exec, const DenseKernels& kernels, const DenseBlock& block,
                         const MoefyOptions& options);

/// From the rows that the layer sees (at least kLeastMoefyText). `done` is called with the number of rows
/// worked on since the last call, twice x.n in all, and may throw.
ExpertCut cut_by_activations(Exec& exec, const DenseKernels& kernels, const DenseBlock& block, ConstRows x,
                             const MoefyOptions& options, const std::function<void(std::size_t)>& done);

}  // namespace terrace
