// SPDX-License-Identifier: Apache-2.0
#include "models/model_cost.h"

#include "models/token_cost.h"
#include "models/widths.h"

namespace terrace {
namespace {

/// The part of a tensor's touched elements that is in use at these widths. The plan has those of the default
/// width.
double share_in_use(const ModelConfig& config, const PlannedTensor& tensor,
                    std::span<const std::uint32_t> widths) noexcept {
  if (widths.empty() || !tensor.block || !tensor.by_width) return 1;
  const double planned = default_width(config.decoder.ff, config.d_ff);
  return static_cast<double>(width_of(widths, *tensor.block)) / planned;
}

}  // namespace

LayerCost& LayerCost::operator+=(const LayerCost& other) noexcept {
  parameters += other.parameters;
  touched += other.touched;
  multiply_adds += other.multiply_adds;
  stored_bytes += other.stored_bytes;
  touched_bytes += other.touched_bytes;
  return *this;
}

double ModelCost::active_share() const noexcept {
  return static_cast<double>(total.touched) / static_cast<double>(total.parameters);
}

LayerCost layer_cost(const ModelConfig& config, const StoredTensor& tensor,
                     std::span<const std::uint32_t> widths) noexcept {
  const auto& [planned, dtype] = tensor;
  const double share = share_in_use(config, planned, widths);
  return {.parameters = planned.elements(),
          .touched = scaled(planned.touched, share),
          .multiply_adds = scaled(token_cost(planned).multiply_adds, share),
          .stored_bytes = stored_bytes(planned, dtype),
          .touched_bytes = scaled(touched_bytes(planned, dtype), share)};
}

ModelCost model_cost(const ModelConfig& config, std::span<const StoredTensor> tensors,
                     std::span<const std::uint32_t> widths) noexcept {
  ModelCost cost;
  for (const StoredTensor& tensor : tensors) {
    const LayerCost part = layer_cost(config, tensor, widths);
    cost.by_kind[static_cast<std::size_t>(tensor.planned.kind)] += part;
    cost.total += part;
  }
  return cost;
}

ModelCost model_cost(const Model& model, std::span<const std::uint32_t> widths) {
  return model_cost(model.config(), stored_plan(model), widths);
}

}  // namespace terrace
