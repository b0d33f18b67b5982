// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/isa.h"
#include "models/cost_model.h"

namespace terrace {

/// How `n_threads` threads divide one decoded token among them.
struct TokenCut {
  TokenPhases phases;
  /// By tensor of the plan: whether threads share its reading. The leader reads the others, alone.
  std::vector<bool> shared;
};

/// From the configuration: the layers' own rules for what is worth sharing (Exec), applied to the shapes.
/// With one thread nothing is shared. Merging the segments of a long context and what LSH and chunked
/// attention prepare is not counted; routed blocks count with their capacity. `widths` as in layer_cost().
TokenCut token_cut(const ModelConfig& config, std::span<const StoredTensor> tensors,
                   std::span<const std::uint32_t> widths, const TokenPlace& place, std::size_t n_threads,
                   Isa isa = isa_from_environment());

}  // namespace terrace
