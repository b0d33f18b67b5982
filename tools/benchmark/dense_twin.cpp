// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmark/dense_twin.h"

#include <algorithm>
#include <cstdint>

#include "models/presets.h"
#include "models/token_cost.h"

namespace terrace::tools {
namespace {

constexpr std::uint32_t kUnitStep = 64;

std::uint64_t parameters(const ModelConfig& config) { return token_cost(tensor_plan(config)).parameters; }

}  // namespace

bool is_sparse(const ModelConfig& config) noexcept {
  using Projection = ProjectionConfig::Kind;
  if (config.logits.kind != Projection::kDense) return true;
  if (config.decoder.ff.kind != FeedForwardConfig::Kind::kDense || config.decoder.depths) return true;
  return std::any_of(config.decoder.attention.begin(), config.decoder.attention.end(),
                     [](const auto& attention) {
                       return attention.kind == AttentionConfig::Kind::kMultiplicativeConv ||
                              attention.sparse_format || attention.projection.kind != Projection::kDense;
                     });
}

ModelConfig dense_twin(const ModelConfig& config) {
  const ModelConfig decoder = decoder_as_language_model(config);
  ModelConfig twin = decoder;
  twin.family = Family::kTransformerLm;
  twin.decoder.attention = {AttentionConfig()};
  twin.decoder.ff = FeedForwardConfig();
  twin.decoder.ff.activation = decoder.decoder.ff.activation;
  twin.decoder.depths.reset();
  twin.logits = ProjectionConfig();

  // Parameters grow linearly with d_ff, so two points give the line.
  const std::uint64_t wanted = parameters(decoder);
  twin.d_ff = kUnitStep;
  const std::uint64_t least = parameters(twin);
  twin.d_ff = 2 * kUnitStep;
  const std::uint64_t per_step = parameters(twin) - least;
  const std::uint64_t more = wanted > least ? (wanted - least + per_step / 2) / per_step : 0;
  twin.d_ff = static_cast<std::uint32_t>(kUnitStep * (1 + more));
  return twin;
}

}  // namespace terrace::tools
