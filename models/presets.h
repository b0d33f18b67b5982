// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/config.h"

namespace terrace {

/// A published model shape, sparse, beside the dense model of equal parameter count that a speed-up is
/// measured against.
struct Preset {
  std::string name;
  std::string description;
  ModelConfig dense;
  std::optional<ModelConfig> sparse;  ///< nullopt for a shape that is dense by nature
};

/// The names that find_preset knows, smallest model first.
std::vector<std::string> preset_names();

/// Shapes of Trax: lm-default (the defaults of ConfigurableTransformerLM), lm1b-24L and c4-medium
/// (sparse_lm1b_pretrain_16gb.gin and terraformer_c4_medium.gin in trax/supervised/configs), lm-17B and
/// terraformer-17B (widths of trax/supervised/decoding_timing_test.py, with as many layers as give 17 billion
/// parameters); and llama-0.8B, the dense shape that other engines are compared on. Parameter counts of the
/// two variants differ by at most 4 %. Throws Error{kBadArgument} with the known names for any other name.
Preset find_preset(std::string_view name);

/// The configuration of one variant. Throws Error{kBadArgument} where the preset has no sparse one.
ModelConfig preset_config(std::string_view name, bool dense);

/// The decoder of an encoder-decoder model alone, as a language model: the same blocks and so the same cost
/// per token, on one stream in place of two. Returns a language model unchanged.
ModelConfig decoder_as_language_model(const ModelConfig& config);

}  // namespace terrace
