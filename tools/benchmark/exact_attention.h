// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <vector>

#include "models/config.h"
#include "tools/benchmark/variants.h"

namespace terrace::tools {

/// Whether layers of the decoder choose by hashes what they attend to.
bool has_lsh_attention(const ModelConfig& config) noexcept;

/// The model whose decoder attends to every position instead, with weights of the same shapes: what its LSH
/// layers approximate, in the form in which exact attention is fastest (K/V pages instead of gathered rows).
ModelConfig with_exact_attention(const ModelConfig& config);

/// `which`: "lsh" keeps the models as they are; "exact" replaces them by exact ones, "both" puts one behind
/// each ("sparse", "sparse exact"). Throws UsageError for the latter two where a model has no LSH layers.
void choose_attention(std::vector<PlannedModel>& models, std::string_view which);

}  // namespace terrace::tools
