// SPDX-License-Identifier: Apache-2.0
#include "models/tensor_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <utility>

#include "attention/position.h"
#include "engine/error.h"
#include "engine/quote.h"
#include "models/plan_layers.h"

namespace terrace {
namespace {

constexpr std::array<const char*, kLayerKinds> kKindNames{
    "embedding", "attention", "controller", "feed-forward", "sru", "norm", "logits", "other"};

constexpr float kPositionStd = 0.2F;  // beside embeddings of size 1
constexpr float kDigitStd = 0.01F;    // 32 digits of up to 14 add up

void position_table(PlanBuilder& plan, const std::string& name, std::uint64_t rows, std::uint64_t width,
                    float std) {
  plan.add(name, {rows, width}, LayerKind::kEmbedding, /*is_weight=*/false, width, 0, {0, {std}});
}

void position(PlanBuilder& plan, const std::string& name, const PositionConfig& p, std::uint64_t d) {
  using Kind = PositionConfig::Kind;
  using Fixed = FixedBasePosition;
  switch (p.kind) {
    case Kind::kLearned:
      return position_table(plan, name + ".table", p.max_len, d, kPositionStd);
    case Kind::kLowRank: {
      position_table(plan, name + ".table", p.max_len, p.rank, kUnitStd);
      const float std = std_of_row(kPositionStd, p.rank);
      return plan.f32(name + ".proj", {d, p.rank}, LayerKind::kEmbedding, {0, {std}}, 1);
    }
    case Kind::kFixedBase:
      plan.f32(name + ".digits", {Fixed::kBases.size(), Fixed::kDigits, d / Fixed::kDigits},
               LayerKind::kEmbedding, {0, {kDigitStd}});
      return plan.f32(name + ".start", {d}, LayerKind::kEmbedding, {0, {kPositionStd}});
    case Kind::kAxial:
      for (std::size_t axis = 0; axis < p.shape.size(); ++axis) {
        position_table(plan, fmt::format("{}.axis.{}", name, axis), p.shape[axis], p.dims[axis],
                       kPositionStd);
      }
      return;
    case Kind::kInfinite: {
      const float std = std_of_row(kPositionStd, d);
      return plan.f32(name + ".weight", {d, d}, LayerKind::kEmbedding, {0, {std}}, 1);
    }
    case Kind::kNone:
    case Kind::kSinCos:
    case Kind::kTimeBin:
      return;
  }
}

void depth_router(PlanBuilder& plan, const std::string& name, const DepthsConfig& depths, std::uint64_t d) {
  constexpr LayerKind kKind = LayerKind::kController;
  const auto vector = [&](const std::string& tensor, PlanBuilder::Shape shape, float gain) {
    const float std = std_of_row(gain, shape.back());
    plan.f32(name + tensor, std::move(shape), kKind, {0, {std}}, 1);
  };
  vector(".router", {d}, 1);
  if (depths.predictor_width == 0) return;
  vector(".predictor.in.weight", {depths.predictor_width, d}, kReluGain);
  plan.bias(name + ".predictor.in.bias", {depths.predictor_width}, kKind);
  vector(".predictor.out.weight", {1, depths.predictor_width}, 1);
  plan.bias(name + ".predictor.out.bias", {1}, kKind);
}

void stack(PlanBuilder& plan, const std::string& name, const StackConfig& s, std::uint64_t d) {
  position(plan, name + ".position", s.position, d);
  const bool has_cross = plan.config().family == Family::kTransformer && plan.context().per_token;
  // Every sublayer adds to the residual stream; together they shall add about as much as the embedding.
  const std::uint64_t sublayers = std::uint64_t{s.n_layers} * (s.n_attention + 1 + (has_cross ? 1 : 0));
  const float gain = std_of_row(1, sublayers);
  for (const StackStep& step : stack_steps(plan.config(), s)) {
    const std::string block = fmt::format("{}.blocks.{}", name, step.block);
    if (plan.context().per_token) plan.context().block = step.block;
    if (step.kind == StackStep::Kind::kForget && s.forget_dense) {
      plan.dense(block + ".forget", step.d_model, step.d_model, LayerKind::kOther, 1);
    }
    if (step.kind != StackStep::Kind::kBlock) continue;
    if (is_routed(s, step.block)) {
      depth_router(plan, block + ".depth", *s.depths, step.d_model);
      plan.context().share = s.depths->capacity;
    }
    for (std::uint32_t j = 0; j < s.n_attention; ++j) {
      const std::string sublayer = fmt::format("{}.attention.{}", block, j);
      plan.norm(sublayer + ".norm", step.d_model);
      plan_attention(plan, sublayer, attention_of(plan.config(), s, step.block, step.d_model), step.d_model,
                     gain);
    }
    if (has_cross) {
      plan.norm(block + ".cross.norm", step.d_model);
      plan_cross_attention(plan, block + ".cross", s.cross, step.d_model, gain);
    }
    if (!s.parallel) plan.norm(block + ".ff.norm", step.d_model);
    plan_feed_forward(plan, block + ".ff", s.ff, step.d_model, step.d_ff, gain);
    plan.context().share = 1;
  }
  plan.context().block.reset();
}

void encoder(PlanBuilder& plan, const StackConfig& s, std::uint64_t d) {
  if (s.d_input) {
    plan.dense("encoder.input", s.d_input, d, LayerKind::kOther, 1);
  } else {
    // The decoder reads a row of it for each token.
    plan.context().per_token = plan.config().shared_embedding;
    plan.table("encoder.embedding", s.vocab_size, d);
    plan.context().per_token = false;
  }
  stack(plan, "encoder", s, d);
  const bool joined = plan.config().family == Family::kTerraformer && !s.reversible;
  if (joined) plan.dense("encoder.join", d, d, LayerKind::kOther, 1);
  if (joined || plan.config().family == Family::kTransformer) plan.norm("encoder.norm", d);
}

}  // namespace

const char* layer_kind_name(LayerKind kind) noexcept { return kKindNames[static_cast<std::size_t>(kind)]; }

LayerKind parse_layer_kind(std::string_view name) {
  const auto found = std::find(kKindNames.begin(), kKindNames.end(), name);
  TERRACE_CHECK(found != kKindNames.end(), kBadArgument,
                fmt::format("there is no kind of layer {}, expected one of {}", quote_text(std::string(name)),
                            fmt::join(kKindNames, ", ")));
  return static_cast<LayerKind>(found - kKindNames.begin());
}

std::uint64_t PlannedTensor::elements() const noexcept {
  return std::accumulate(shape.begin(), shape.end(), std::uint64_t{1}, std::multiplies<>());
}

std::vector<PlannedTensor> tensor_plan(const ModelConfig& config) {
  validate(config);
  PlanBuilder plan(config);
  const std::uint64_t d = embedding_width(config);
  if (config.encoder) encoder(plan, *config.encoder, d);
  plan.context().per_token = true;
  if (!config.shared_embedding) plan.table("decoder.embedding", config.vocab_size, d);
  stack(plan, "decoder", config.decoder, d);
  plan.norm("decoder.norm", final_width(config));
  plan.projection("decoder.logits", config.logits, final_width(config), config.vocab_size, LayerKind::kLogits,
                  1);
  return std::move(plan).take();
}

}  // namespace terrace
