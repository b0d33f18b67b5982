// SPDX-License-Identifier: Apache-2.0
#include "models/stored_plan.h"

#include <algorithm>
#include <array>
#include <utility>

#include "models/token_cost.h"

namespace terrace {

std::vector<StoredTensor> stored_plan(const ModelConfig& config, const WeightDTypes& dtypes) {
  std::vector<StoredTensor> tensors;
  for (PlannedTensor& planned : tensor_plan(config)) {
    const DType dtype = stored_dtype(planned, dtypes);
    tensors.push_back({std::move(planned), dtype});
  }
  return tensors;
}

std::vector<StoredTensor> stored_plan(const Model& model) {
  std::vector<StoredTensor> tensors;
  for (PlannedTensor& planned : tensor_plan(model.config())) {
    const TensorInfo* stored = model.file().find(planned.name);
    if (stored == nullptr) continue;
    tensors.push_back({std::move(planned), weight_dtype(*stored).value_or(DType::kF32)});
  }
  return tensors;
}

DType main_dtype(std::span<const StoredTensor> tensors) noexcept {
  std::array<std::uint64_t, std::size(kDTypes)> elements{};
  for (const auto& [planned, dtype] : tensors) {
    if (planned.is_weight) elements[static_cast<std::size_t>(dtype)] += planned.elements();
  }
  return static_cast<DType>(std::max_element(elements.begin(), elements.end()) - elements.begin());
}

DType main_dtype(const Model& model) { return main_dtype(stored_plan(model)); }

}  // namespace terrace
