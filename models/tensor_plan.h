// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/config.h"

namespace terrace {

/// The part of a model that a tensor belongs to; cost tables are grouped by it, and weights may be stored
/// kind by kind.
enum class LayerKind : std::uint8_t {
  kEmbedding,    ///< token and position tables
  kAttention,    ///< projections, self and cross
  kController,   ///< what chooses units of a sparse feed-forward layer, or the tokens of a block
  kFeedForward,  ///< all units
  kSru,
  kNorm,
  kLogits,
  kOther,  ///< forgetting layers, the joint of encoder and decoder
};
inline constexpr std::size_t kLayerKinds = static_cast<std::size_t>(LayerKind::kOther) + 1;

/// "embedding", "attention", "controller", "feed-forward", "sru", "norm", "logits", "other".
const char* layer_kind_name(LayerKind kind) noexcept;
/// The reverse. Throws Error{kBadArgument} that lists the names.
LayerKind parse_layer_kind(std::string_view name);

/// How a tensor is filled when there is nothing to load.
struct InitialValue {
  float mean = 0;                ///< of every element
  std::vector<float> std{0.0F};  ///< of the elements of row r: std[r / run % std.size()]
  std::uint64_t run = 1;
};

/// One tensor that a configuration needs.
struct PlannedTensor {
  std::string name;
  std::vector<std::uint64_t> shape;  ///< in elements
  LayerKind kind = LayerKind::kOther;
  bool is_weight = false;     ///< may have any dtype (marked W in docs/model-file.md); else f32
  std::uint64_t touched = 0;  ///< elements read to decode one token, always whole rows; 0 in an encoder; on
                              ///< average at the capacity of a routed block
  std::uint64_t uses = 0;  ///< multiply-adds per element read; 0 for vectors that are only added or scaled by
  InitialValue initial;
  std::optional<std::uint32_t> block;  ///< of the decoder, where it lies in one
  bool by_width = false;               ///< a nested width of the block uses a prefix of the tensor

  std::uint64_t elements() const noexcept;
  std::uint64_t columns() const noexcept { return shape.empty() ? 1 : shape.back(); }
};

/// All tensors of a model, in the order in which a file stores them: encoder, then decoder, in the order of a
/// forward pass. Models with rms_norm have no biases (as LLaMA and its kin), all others have those of Trax.
/// Throws Error{kBadConfig} for a configuration that describes no model.
std::vector<PlannedTensor> tensor_plan(const ModelConfig& config);

}  // namespace terrace
