// SPDX-License-Identifier: Apache-2.0
#include "models/attention_layer.h"

#include "engine/error.h"

namespace terrace {

AttentionLayer::Layer AttentionLayer::build_layer(const LayerBuilder& build, const std::string& name,
                                                  const AttentionConfig& config, std::size_t d_model,
                                                  bool causal) {
  using Kind = AttentionConfig::Kind;
  switch (config.kind) {
    case Kind::kDotProduct:
      return DotProductLayer(build, name, config, d_model, causal);
    case Kind::kMultiplicativeConv:
      return MultiplicativeConvLayer(build, name, config, d_model);
    case Kind::kSelf:
      return SelfAttentionLayer(build, name, config, d_model, causal);
    case Kind::kLsh:
    case Kind::kPureLsh:
    case Kind::kMixedLsh:
      return LshLayer(build, name, config, d_model, causal);
    case Kind::kFavor:
      return FavorLayer(build, name, config, d_model, causal);
  }
  throw Error(ErrorCode::kInternal, "attention of unknown kind");
}

AttentionLayer::AttentionLayer(const LayerBuilder& build, const std::string& name,
                               const AttentionConfig& config, std::size_t d_model, bool causal)
    : causal_(causal),
      layer_(build_layer(build, name, config, d_model, causal)),
      encode_passes_(std::visit(
          [](const auto& layer) -> std::size_t {
            if constexpr (requires { layer.kEncodePasses; }) return layer.kEncodePasses;
            return 0;
          },
          layer_)) {}

void AttentionLayer::forward(StepContext& context, ConstRows x, Rows y) const {
  const ProfileZone zone(context.exec.profile, Zone::kProjections);
  std::visit([&](const auto& layer) { layer.forward(context, x, y); }, layer_);
}

void AttentionLayer::encode(EncodeContext& context, const Norm& norm, ConstRows x, Rows sum) const {
  std::visit(
      [&](const auto& layer) {
        if constexpr (requires { layer.encode(context, norm, x, sum); }) {
          layer.encode(context, norm, x, sum);
        } else {
          throw Error(ErrorCode::kInternal, "this attention has no whole-sequence form");
        }
      },
      layer_);
}

bool AttentionLayer::steps_equal_evaluation() const noexcept {
  if (const auto* self = std::get_if<SelfAttentionLayer>(&layer_)) return self->steps_equal_evaluation();
  return !std::holds_alternative<LshLayer>(layer_);
}

std::size_t AttentionLayer::length_multiple() const noexcept {
  if (const auto* self = std::get_if<SelfAttentionLayer>(&layer_)) return self->length_multiple();
  if (const auto* lsh = std::get_if<LshLayer>(&layer_)) return lsh->length_multiple();
  return 1;
}

}  // namespace terrace
