// SPDX-License-Identifier: Apache-2.0
#include "attention/lsh_hash.h"
#include "engine/depthwise_conv.h"
#include "models/plan_layers.h"
#include "models/trax_sizes.h"

namespace terrace {
namespace {

using Bias = PlanBuilder::Bias;

constexpr LayerKind kKind = LayerKind::kAttention;

void dot_product(PlanBuilder& plan, const std::string& name, const AttentionConfig& a, std::uint64_t d,
                 std::uint64_t d_q, float gain) {
  const std::uint64_t d_kv = a.n_kv_heads ? d_q / plan.config().n_heads * a.n_kv_heads : d_q;
  const auto part = [&](const char* suffix, std::uint64_t width) {
    plan.projection(name + suffix, a.projection, d, width, kKind, 1);
    if (!a.use_dconv) return;
    const float std = std_of_row(1, DepthwiseConv::kTaps);
    plan.f32(name + suffix + ".dconv", {DepthwiseConv::kTaps, width}, kKind, {0, {std}}, 1);
  };
  part(".q", d_q);
  part(".k", d_kv);
  part(".v", d_kv);
  plan.projection(name + ".out", a.projection, d_q, d, kKind, gain);
  if (a.kind == AttentionConfig::Kind::kFavor && a.softmax_features) {
    plan.f32(name + ".features", {a.softmax_features, d_q / plan.config().n_heads}, kKind, {0, {kUnitStd}},
             plan.config().n_heads);
  }
}

void multiplicative_conv(PlanBuilder& plan, const std::string& name, const AttentionConfig& a,
                         std::uint64_t d, float gain) {
  using Output = AttentionConfig::Output;
  const std::uint64_t s = a.n_modules;
  const std::uint64_t steps = a.kernel_size;
  const std::uint64_t v_in = a.v_concat == VConcat::kNone ? d : 2 * d;
  const bool has_mult = a.output == Output::kMult || a.output == Output::kMultConv;
  const bool has_conv = a.output == Output::kConv || a.output == Output::kMultConv;
  plan.mult(name + ".shared", d, d, s, kKind, 1);
  plan.conv(name + ".q", d, d, s, kModulesSeenByQk, steps, kKind, 1);
  if (!a.share_qk) plan.conv(name + ".k", d, d, s, kModulesSeenByQk, steps, kKind, 1);
  plan.conv(name + ".v", v_in, d, s, kModulesSeenByV, steps, kKind, has_mult || has_conv ? 1 : gain);
  if (has_mult) plan.mult(name + ".out_mult", d, d, s, kKind, has_conv ? 1 : gain);
  if (has_conv) plan.conv(name + ".out_conv", d, d, s, kModulesSeenByQk, steps, kKind, gain);
}

void lsh(PlanBuilder& plan, const std::string& name, const AttentionConfig& a, std::uint64_t d,
         std::uint64_t d_k, std::uint64_t d_v, float gain) {
  const bool pure = a.kind != AttentionConfig::Kind::kLsh;
  const bool shared = !pure || a.n_weights == 2;
  const std::string q = name + (shared ? ".qk" : ".q");
  if (a.sparse_format) {
    plan.mult(name + ".shared", d, d_k, a.n_modules, kKind, 1);
    plan.conv(q, d_k, d_k, a.n_modules, kModulesSeenByQk, kStepsSeen, kKind, 1);
    if (!shared) plan.conv(name + ".k", d_k, d_k, a.n_modules, kModulesSeenByQk, kStepsSeen, kKind, 1);
    plan.conv(name + ".v", d_k, d_v, a.n_modules, kModulesSeenByV, kStepsSeen, kKind, gain);
  } else {
    const Bias has_bias = pure ? Bias::kUnlessRms : Bias::kNever;
    plan.dense(q, d, d_k, kKind, 1, has_bias);
    if (!shared) plan.dense(name + ".k", d, d_k, kKind, 1, has_bias);
    plan.dense(name + ".v", d, d_v, kKind, 1, has_bias);
    plan.dense(name + ".out", d_v, d, kKind, gain, has_bias);
  }
  // Sequences are padded to whole chunks.
  const std::uint64_t longest =
      (std::uint64_t{plan.config().max_context} + a.chunk_len - 1) / a.chunk_len * a.chunk_len;
  const std::uint64_t n_rotations = a.n_buckets.empty() ? LshBuckets::most_rotations(longest, a.chunk_len)
                                                        : LshBuckets{a.n_buckets}.n_rotations();
  const std::uint64_t d_head = d_k / plan.config().n_heads;
  plan.f32(name + ".rotations", {plan.config().n_heads, a.n_hashes, n_rotations, d_head}, kKind,
           {0, {kUnitStd}}, 1);
}

}  // namespace

void plan_attention(PlanBuilder& plan, const std::string& name, const AttentionConfig& a, std::uint64_t d,
                    float gain) {
  using Kind = AttentionConfig::Kind;
  const std::uint64_t n_heads = plan.config().n_heads;
  const std::uint64_t d_k = n_heads * (a.d_head ? a.d_head : d / n_heads);
  const std::uint64_t d_v = a.d_value ? n_heads * a.d_value : d_k;
  switch (a.kind) {
    case Kind::kDotProduct:
    case Kind::kFavor:
      return dot_product(plan, name, a, d, d_k, gain);
    case Kind::kMultiplicativeConv:
      return multiplicative_conv(plan, name, a, d, gain);
    case Kind::kSelf:
      plan.dense(name + ".q", d, d_k, kKind, 1, Bias::kNever);
      if (!a.share_qk) plan.dense(name + ".k", d, d_k, kKind, 1, Bias::kNever);
      plan.dense(name + ".v", d, d_v, kKind, 1, Bias::kNever);
      return plan.dense(name + ".out", d_v, d, kKind, gain, Bias::kNever);
    case Kind::kLsh:
    case Kind::kPureLsh:
    case Kind::kMixedLsh:
      return lsh(plan, name, a, d, d_k, d_v, gain);
  }
}

void plan_cross_attention(PlanBuilder& plan, const std::string& name, const CrossAttentionConfig& c,
                          std::uint64_t d, float gain) {
  const auto part = [&](const std::string& part_name, std::uint64_t modules, float part_gain) {
    if (modules == 0) return plan.dense(part_name, d, d, kKind, part_gain);
    plan.mult(part_name, d, d, modules, kKind, 1);
    plan.conv(part_name + "_conv", d, d, modules, kModulesSeenByQk, kStepsSeen, kKind, part_gain);
  };
  part(name + ".q", c.q_modules, 1);
  // Keys and values of the encoder's rows are computed once per document, not per token.
  plan.context().per_token = false;
  plan.dense(name + ".k", d, d, kKind, 1);
  plan.dense(name + ".v", d, d, kKind, c.has_output ? 1 : gain);
  plan.context().per_token = true;
  if (c.has_output) part(name + ".out", c.out_modules, gain);
}

}  // namespace terrace
