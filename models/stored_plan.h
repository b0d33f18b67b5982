// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/model.h"
#include "models/tensor_plan.h"
#include "models/weight_dtypes.h"

namespace terrace {

/// A tensor of a plan and how it is stored: in a file, or in one that could be made.
struct StoredTensor {
  PlannedTensor planned;
  DType dtype = DType::kF32;
};

/// Every tensor of the model that init_model() would write. Nothing is written and no memory is taken for
/// weights. Throws Error{kBadConfig}.
std::vector<StoredTensor> stored_plan(const ModelConfig& config, const WeightDTypes& dtypes);

/// The tensors of a model file: the plan of its configuration without the optional biases that it lacks.
std::vector<StoredTensor> stored_plan(const Model& model);

/// How most of the weights are stored.
DType main_dtype(std::span<const StoredTensor> tensors) noexcept;
DType main_dtype(const Model& model);

}  // namespace terrace
