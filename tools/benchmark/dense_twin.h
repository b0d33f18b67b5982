// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "models/config.h"

namespace terrace::tools {

/// Whether any layer of the decoder is sparse: a projection, attention, feed-forward or output layer that
/// reads less than a dense one.
bool is_sparse(const ModelConfig& config) noexcept;

/// The dense language model of the same depth and width whose parameter count comes nearest to that of
/// `config` (the decoder alone of an encoder-decoder model): dense attention and output layer, and a dense
/// feed-forward part whose d_ff, a multiple of 64, makes up the difference. For models without a preset.
ModelConfig dense_twin(const ModelConfig& config);

}  // namespace terrace::tools
