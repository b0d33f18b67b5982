// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "models/stored_plan.h"

namespace terrace {

/// What a model holds and what one decoded token reads of it, keys, values and state not counted.
struct LayerCost {
  std::uint64_t parameters = 0;
  std::uint64_t touched = 0;        ///< parameters read per token
  std::uint64_t multiply_adds = 0;  ///< per token
  std::uint64_t stored_bytes = 0;   ///< with scales
  std::uint64_t touched_bytes = 0;  ///< read per token, as stored

  LayerCost& operator+=(const LayerCost& other) noexcept;
};

struct ModelCost {
  std::array<LayerCost, kLayerKinds> by_kind;
  LayerCost total;

  /// Parameters read per token over all parameters.
  double active_share() const noexcept;
};

/// One tensor, when the feed-forward layers use `widths` units: one number or one per block of the decoder;
/// empty = the default of the configuration.
LayerCost layer_cost(const ModelConfig& config, const StoredTensor& tensor,
                     std::span<const std::uint32_t> widths = {}) noexcept;

/// The sum over all tensors: of a configuration and dtypes, or of a file.
ModelCost model_cost(const ModelConfig& config, std::span<const StoredTensor> tensors,
                     std::span<const std::uint32_t> widths = {}) noexcept;
ModelCost model_cost(const Model& model, std::span<const std::uint32_t> widths = {});

}  // namespace terrace
