// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "engine/isa.h"
#include "models/cost_model.h"

namespace terrace {

/// The phases of one decoded token that `n_threads` threads share, from the configuration: the layers' own
/// rules for what is worth sharing (Exec), applied to the shapes. With one thread there are none. Merging the
/// segments of a long context and what LSH and chunked attention prepare is not counted; routed blocks count
/// with their capacity. `widths` as in layer_cost().
TokenPhases token_phases(const ModelConfig& config, std::span<const StoredTensor> tensors,
                         std::span<const std::uint32_t> widths, const TokenPlace& place,
                         std::size_t n_threads, Isa isa = isa_from_environment());

}  // namespace terrace
