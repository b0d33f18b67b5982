// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "attention/position.h"
#include "models/layer_builder.h"

namespace terrace {

/// The positional encoding `<stack>.position.*` of width `d`.
PositionEncoding build_position(const LayerBuilder& build, const std::string& stack,
                                const PositionConfig& config, std::size_t d);

/// Positions that a stack can tell apart: those of its table; with rotary or infinite positions, those that
/// the model was made for.
std::size_t position_limit(const ModelConfig& config, const StackConfig& stack);

}  // namespace terrace
