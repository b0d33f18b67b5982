// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "attention/kv_cache.h"
#include "models/model.h"
#include "models/tensor_plan.h"

namespace terrace::tools {

/// What a model holds and what one decoded token reads of it.
struct LayerCost {
  std::uint64_t parameters = 0;
  std::uint64_t touched = 0;        ///< parameters read per token
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

/// From the plan of the configuration and the dtypes of the file. `widths`: feed-forward units in use, one
/// number or one per block; empty = all.
ModelCost model_cost(const Model& model, std::span<const std::uint32_t> widths = {});

/// How most of a model's weights are stored.
DType main_dtype(const Model& model);

/// Bytes of keys and values that the token at `position` reads (those of the document included), and of
/// recurrent state. LSH layers read their budget of slots, or all that they remember with `exact_attention`.
/// Other windowed attention is counted as if it read everything.
std::uint64_t state_bytes_read(const Model& model, KvType kv_type, std::size_t position,
                               std::size_t encoder_length, bool exact_attention = false);

}  // namespace terrace::tools
