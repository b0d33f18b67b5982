// SPDX-License-Identifier: Apache-2.0
#include "models/tensor_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "attention/lsh_hash.h"
#include "engine/error.h"
#include "engine/quote.h"

namespace terrace {
namespace {

using Shape = std::vector<std::uint64_t>;

constexpr std::array<const char*, kLayerKinds> kKindNames{
    "embedding", "attention", "controller", "feed-forward", "sru", "norm", "logits", "other"};

// Trax fixes the number of modules that its sparse projections see, and that of cross attention's steps.
constexpr std::uint64_t kModulesSeenByQk = 3;
constexpr std::uint64_t kModulesSeenByV = 1;
constexpr std::uint64_t kLshSteps = 3;
constexpr std::uint64_t kCrossSteps = 3;
constexpr std::uint64_t kDconvTaps = 3;
constexpr std::uint64_t kFixedBases = 4;
constexpr std::uint64_t kFixedDigits = 8;

// Initial values: a weight row of n inputs has std gain / sqrt(n), so that inputs of size 1 give outputs of
// size gain.
constexpr float kRelu = 1.41421356F;  // a rectifier halves the mean square
constexpr float kBiasStd = 0.02F;     // not zero: a forgotten bias must show
constexpr float kPositionStd = 0.2F;  // beside embeddings of size 1
constexpr float kDigitStd = 0.01F;    // 32 digits of up to 14 add up
constexpr float kUnitStd = 1.0F;

float std_of_row(float gain, std::uint64_t n_inputs) noexcept {
  return gain / std::sqrt(static_cast<float>(n_inputs));
}

class PlanBuilder {
 public:
  explicit PlanBuilder(const ModelConfig& config)
      : config_(config), is_rms_(config.norm.kind == NormConfig::Kind::kRmsNorm) {}

  std::vector<PlannedTensor> build() && {
    const std::uint64_t d = embedding_width(config_);
    if (config_.encoder) encoder(*config_.encoder, d);
    per_token_ = true;
    if (!config_.shared_embedding) table("decoder.embedding", config_.vocab_size, d);
    stack("decoder", config_.decoder, d);
    norm("decoder.norm", final_width(config_));
    projection("decoder.logits", config_.logits, final_width(config_), config_.vocab_size, LayerKind::kLogits,
               1);
    return std::move(plan_);
  }

 private:
  // --- single tensors --------------------------------------------------------------------------------------

  void add(std::string name, Shape shape, LayerKind kind, bool is_weight, std::uint64_t touched,
           std::uint64_t uses, InitialValue initial) {
    if (!per_token_) touched = 0;
    // Whole rows, and at least one of what some token reads.
    if (share_ < 1 && touched) {
      const std::uint64_t columns = shape.empty() ? 1 : shape.back();
      const std::uint64_t rows = touched / columns;
      const std::int64_t of_some_tokens = std::llround(static_cast<double>(rows) * share_);
      touched = columns * static_cast<std::uint64_t>(std::max<std::int64_t>(1, of_some_tokens));
    }
    plan_.push_back({std::move(name), std::move(shape), kind, is_weight, touched, uses, initial});
  }

  /// A weight of which every element is read and used `uses` times.
  void weight(const std::string& name, Shape shape, LayerKind kind, float gain, std::uint64_t uses = 1) {
    const std::uint64_t elements =
        std::accumulate(shape.begin(), shape.end(), std::uint64_t{1}, std::multiplies<>());
    const float std = std_of_row(gain, shape.back());
    add(name, std::move(shape), kind, /*is_weight=*/true, elements, uses, {0, {std}});
  }

  void f32(const std::string& name, Shape shape, LayerKind kind, InitialValue initial,
           std::uint64_t uses = 0) {
    const std::uint64_t elements =
        std::accumulate(shape.begin(), shape.end(), std::uint64_t{1}, std::multiplies<>());
    add(name, std::move(shape), kind, /*is_weight=*/false, elements, uses, initial);
  }

  /// Gates of a multiplicative layer, of size 1.
  void gate(const std::string& name, std::uint64_t s, std::uint64_t in, LayerKind kind) {
    add(name, {s, in}, kind, /*is_weight=*/true, s * in, 1, {0, {kUnitStd}});
  }

  void bias(const std::string& name, Shape shape, LayerKind kind) {
    f32(name, std::move(shape), kind, {0, {kBiasStd}});
  }

  /// A token table, of which one row is read.
  void table(const std::string& name, std::uint64_t rows, std::uint64_t d) {
    add(name, {rows, d}, LayerKind::kEmbedding, /*is_weight=*/true, d, 0, {0, {kUnitStd}});
  }

  void position_table(const std::string& name, std::uint64_t rows, std::uint64_t width, float std) {
    add(name, {rows, width}, LayerKind::kEmbedding, /*is_weight=*/false, width, 0, {0, {std}});
  }

  void norm(const std::string& name, std::uint64_t d) {
    f32(name + ".scale", {d}, LayerKind::kNorm, {1, {0}});
    if (!is_rms_) bias(name + ".bias", {d}, LayerKind::kNorm);
  }

  // --- linear maps -----------------------------------------------------------------------------------------

  enum class Bias { kNever, kUnlessRms, kAlways };

  void dense(const std::string& name, std::uint64_t in, std::uint64_t out, LayerKind kind, float gain,
             Bias with_bias = Bias::kUnlessRms) {
    weight(name + ".weight", {out, in}, kind, gain);
    if (with_bias == Bias::kAlways || (with_bias == Bias::kUnlessRms && !is_rms_))
      bias(name + ".bias", {out}, kind);
  }

  void mult(const std::string& name, std::uint64_t in, std::uint64_t out, std::uint64_t s, LayerKind kind,
            float gain) {
    gate(name + ".gate", s, in, kind);
    weight(name + ".proj", {out / s, in}, kind, gain, s);
    bias(name + ".bias", {out}, kind);
  }

  void conv(const std::string& name, std::uint64_t in, std::uint64_t out, std::uint64_t s,
            std::uint64_t modules_seen, std::uint64_t steps, LayerKind kind, float gain) {
    if (s == 1) modules_seen = steps = 1;
    weight(name + ".weight", {out / s, modules_seen * steps * (in / s)}, kind, gain, s);
    bias(name + ".bias", {out / s}, kind);
  }

  void projection(const std::string& name, const ProjectionConfig& p, std::uint64_t in, std::uint64_t out,
                  LayerKind kind, float gain) {
    const std::uint64_t s = p.n_modules;
    switch (p.kind) {
      case ProjectionConfig::Kind::kDense:
        return dense(name, in, out, kind, gain);
      case ProjectionConfig::Kind::kMult:
        return mult(name, in, out, s, kind, gain);
      case ProjectionConfig::Kind::kConv:
        return conv(name, in, out, s, p.kernel_size, 1, kind, gain);
      case ProjectionConfig::Kind::kLowRank:
        dense(name + ".down", in, p.rank, kind, 1);
        return dense(name + ".up", p.rank, out, kind, gain);
      case ProjectionConfig::Kind::kMultModular:
        gate(name + ".gate", s, in, kind);
        weight(name + ".shared", {out / s, in}, kind, 1, s);
        weight(name + ".modules", {s, out / s, out / s}, kind, gain);
        return bias(name + ".bias", {out}, kind);
      case ProjectionConfig::Kind::kLocal:
        if (s == 1) return dense(name, in, out, kind, gain);
        weight(name + ".weight", {s, out / s, p.kernel_size * (in / s)}, kind, gain);
        return bias(name + ".bias", {s, out / s}, kind);
    }
  }

  // --- attention -------------------------------------------------------------------------------------------

  void attention(const std::string& name, const AttentionConfig& a, std::uint64_t d, float gain) {
    using Kind = AttentionConfig::Kind;
    const std::uint64_t n_heads = config_.n_heads;
    const std::uint64_t d_k = n_heads * (a.d_head ? a.d_head : d / n_heads);
    const std::uint64_t d_v = a.d_value ? n_heads * a.d_value : d_k;
    switch (a.kind) {
      case Kind::kDotProduct:
      case Kind::kFavor:
        return dot_product(name, a, d, d_k, gain);
      case Kind::kMultiplicativeConv:
        return multiplicative_conv(name, a, d, gain);
      case Kind::kSelf:
        dense(name + ".q", d, d_k, LayerKind::kAttention, 1, Bias::kNever);
        if (!a.share_qk) dense(name + ".k", d, d_k, LayerKind::kAttention, 1, Bias::kNever);
        dense(name + ".v", d, d_v, LayerKind::kAttention, 1, Bias::kNever);
        return dense(name + ".out", d_v, d, LayerKind::kAttention, gain, Bias::kNever);
      case Kind::kLsh:
      case Kind::kPureLsh:
      case Kind::kMixedLsh:
        return lsh(name, a, d, d_k, d_v, gain);
    }
  }

  void dot_product(const std::string& name, const AttentionConfig& a, std::uint64_t d, std::uint64_t d_q,
                   float gain) {
    const std::uint64_t d_kv = a.n_kv_heads ? d_q / config_.n_heads * a.n_kv_heads : d_q;
    const auto part = [&](const char* suffix, std::uint64_t width) {
      projection(name + suffix, a.projection, d, width, LayerKind::kAttention, 1);
      if (!a.use_dconv) return;
      const float std = std_of_row(1, kDconvTaps);
      f32(name + suffix + ".dconv", {kDconvTaps, width}, LayerKind::kAttention, {0, {std}}, 1);
    };
    part(".q", d_q);
    part(".k", d_kv);
    part(".v", d_kv);
    projection(name + ".out", a.projection, d_q, d, LayerKind::kAttention, gain);
    if (a.kind == AttentionConfig::Kind::kFavor && a.softmax_features) {
      f32(name + ".features", {a.softmax_features, d_q / config_.n_heads}, LayerKind::kAttention,
          {0, {kUnitStd}}, config_.n_heads);
    }
  }

  void multiplicative_conv(const std::string& name, const AttentionConfig& a, std::uint64_t d, float gain) {
    using Output = AttentionConfig::Output;
    const std::uint64_t s = a.n_modules;
    const std::uint64_t steps = a.kernel_size;
    const std::uint64_t v_in = a.v_concat == AttentionConfig::VConcat::kNone ? d : 2 * d;
    const bool has_mult = a.output == Output::kMult || a.output == Output::kMultConv;
    const bool has_conv = a.output == Output::kConv || a.output == Output::kMultConv;
    constexpr LayerKind kKind = LayerKind::kAttention;
    mult(name + ".shared", d, d, s, kKind, 1);
    conv(name + ".q", d, d, s, kModulesSeenByQk, steps, kKind, 1);
    if (!a.share_qk) conv(name + ".k", d, d, s, kModulesSeenByQk, steps, kKind, 1);
    conv(name + ".v", v_in, d, s, kModulesSeenByV, steps, kKind, has_mult || has_conv ? 1 : gain);
    if (has_mult) mult(name + ".out_mult", d, d, s, kKind, has_conv ? 1 : gain);
    if (has_conv) conv(name + ".out_conv", d, d, s, kModulesSeenByQk, steps, kKind, gain);
  }

  void lsh(const std::string& name, const AttentionConfig& a, std::uint64_t d, std::uint64_t d_k,
           std::uint64_t d_v, float gain) {
    constexpr LayerKind kKind = LayerKind::kAttention;
    const bool pure = a.kind != AttentionConfig::Kind::kLsh;
    const bool shared = !pure || a.n_weights == 2;
    const std::string q = name + (shared ? ".qk" : ".q");
    if (a.sparse_format) {
      mult(name + ".shared", d, d_k, a.n_modules, kKind, 1);
      conv(q, d_k, d_k, a.n_modules, kModulesSeenByQk, kLshSteps, kKind, 1);
      if (!shared) conv(name + ".k", d_k, d_k, a.n_modules, kModulesSeenByQk, kLshSteps, kKind, 1);
      conv(name + ".v", d_k, d_v, a.n_modules, kModulesSeenByV, kLshSteps, kKind, gain);
    } else {
      const Bias has_bias = pure ? Bias::kUnlessRms : Bias::kNever;
      dense(q, d, d_k, kKind, 1, has_bias);
      if (!shared) dense(name + ".k", d, d_k, kKind, 1, has_bias);
      dense(name + ".v", d, d_v, kKind, 1, has_bias);
      dense(name + ".out", d_v, d, kKind, gain, has_bias);
    }
    // Sequences are padded to whole chunks.
    const std::uint64_t longest =
        (std::uint64_t{config_.max_context} + a.chunk_len - 1) / a.chunk_len * a.chunk_len;
    const std::uint64_t n_rotations = a.n_buckets.empty() ? LshBuckets::most_rotations(longest, a.chunk_len)
                                                          : LshBuckets{a.n_buckets}.n_rotations();
    const std::uint64_t d_head = d_k / config_.n_heads;
    f32(name + ".rotations", {config_.n_heads, a.n_hashes, n_rotations, d_head}, kKind, {0, {kUnitStd}}, 1);
  }

  void cross_attention(const std::string& name, const CrossAttentionConfig& c, std::uint64_t d, float gain) {
    constexpr LayerKind kKind = LayerKind::kAttention;
    const auto part = [&](const std::string& part_name, std::uint64_t modules, float part_gain) {
      if (modules == 0) return dense(part_name, d, d, kKind, part_gain);
      mult(part_name, d, d, modules, kKind, 1);
      conv(part_name + "_conv", d, d, modules, kModulesSeenByQk, kCrossSteps, kKind, part_gain);
    };
    part(name + ".q", c.q_modules, 1);
    // Keys and values of the encoder's rows are computed once per document, not per token.
    per_token_ = false;
    dense(name + ".k", d, d, kKind, 1);
    dense(name + ".v", d, d, kKind, c.has_output ? 1 : gain);
    per_token_ = true;
    if (c.has_output) part(name + ".out", c.out_modules, gain);
  }

  // --- feed-forward ----------------------------------------------------------------------------------------

  /// Units [F, 2, d]: the w1 row and the w2 row of each, of which `active` units are read.
  void units(const std::string& name, std::uint64_t d, std::uint64_t d_ff, std::uint64_t active, float gain) {
    const InitialValue initial{0, {std_of_row(kRelu, d), std_of_row(gain, active)}};
    add(name + ".units", {d_ff, 2, d}, LayerKind::kFeedForward, /*is_weight=*/true, 2 * active * d, 1,
        initial);
    bias(name + ".bias", {d}, LayerKind::kFeedForward);
  }

  /// Units [E, M, U, d] of experts: their gates (M = 3), w1 rows, w2 rows, each kind one run.
  void experts(const std::string& name, const FeedForwardConfig& f, std::uint64_t d, std::uint64_t d_ff,
               std::uint64_t n_active, float gain) {
    const std::uint64_t n_units = d_ff / f.n_experts;
    const std::uint64_t active = n_active * n_units;
    InitialValue initial{0, {std_of_row(kRelu, d), std_of_row(gain, active)}, n_units};
    if (f.gated) initial.std.insert(initial.std.begin() + 1, std_of_row(1, d));
    const std::uint64_t runs = initial.std.size();
    add(name + ".units", {f.n_experts, runs, n_units, d}, LayerKind::kFeedForward, /*is_weight=*/true,
        runs * active * d, 1, std::move(initial));
  }

  void feed_forward(const std::string& name, const FeedForwardConfig& f, std::uint64_t d, std::uint64_t d_ff,
                    float gain) {
    using Kind = FeedForwardConfig::Kind;
    constexpr LayerKind kKind = LayerKind::kFeedForward;
    switch (f.kind) {
      case Kind::kDense:
        dense(name + ".w1", d, d_ff, kKind, kRelu);
        if (f.gated) dense(name + ".gate", d, d_ff, kKind, 1);
        dense(name + ".w2", d_ff, d, kKind, gain);
        break;
      case Kind::kSparse:
        weight(name + ".controller.down", {f.d_lowrank, d}, LayerKind::kController, 1);
        weight(name + ".controller.up", {d_ff, f.d_lowrank}, LayerKind::kController, 1);
        bias(name + ".controller.bias", {d_ff}, LayerKind::kController);
        units(name, d, d_ff, d_ff / f.block_size, gain);
        break;
      case Kind::kBlock:
      case Kind::kSwitch:
        weight(name + ".router", {f.n_experts, d}, LayerKind::kController, 1);
        experts(name, f, d, d_ff, 1, gain);
        bias(name + ".bias", {d}, kKind);
        break;
      case Kind::kExperts:
        weight(name + ".router", {f.n_experts, d}, LayerKind::kController, 1);
        bias(name + ".router_bias", {f.n_experts}, LayerKind::kController);
        experts(name, f, d, d_ff, f.n_active, gain);
        if (!is_rms_) {
          add(name + ".unit_bias", {d_ff}, kKind, /*is_weight=*/false,
              default_width(f, static_cast<std::uint32_t>(d_ff)), 0, {0, {kBiasStd}});
        }
        add(name + ".offsets", {f.n_experts, d}, kKind, /*is_weight=*/true, f.n_active * d, 1,
            {0, {kBiasStd}});
        bias(name + ".bias", {d}, kKind);
        break;
    }
    if (f.sru.n_layers > 0) sru(name + ".sru", f.sru, d, gain);
  }

  void sru(const std::string& name, const SruConfig& s, std::uint64_t d, float gain) {
    norm(name + ".norm", d);
    dense(name + ".in", d, s.width, LayerKind::kSru, 1, Bias::kAlways);
    for (std::uint32_t k = 0; k < s.n_layers; ++k) {
      dense(fmt::format("{}.cells.{}", name, k), s.width, std::uint64_t{3} * s.width, LayerKind::kSru, 1,
            Bias::kAlways);
    }
    dense(name + ".out", s.width, d, LayerKind::kSru, gain, Bias::kAlways);
  }

  // --- stacks ----------------------------------------------------------------------------------------------

  void position(const std::string& name, const PositionConfig& p, std::uint64_t d) {
    using Kind = PositionConfig::Kind;
    switch (p.kind) {
      case Kind::kLearned:
        return position_table(name + ".table", p.max_len, d, kPositionStd);
      case Kind::kLowRank: {
        position_table(name + ".table", p.max_len, p.rank, kUnitStd);
        const float std = std_of_row(kPositionStd, p.rank);
        return f32(name + ".proj", {d, p.rank}, LayerKind::kEmbedding, {0, {std}}, 1);
      }
      case Kind::kFixedBase:
        f32(name + ".digits", {kFixedBases, kFixedDigits, d / kFixedDigits}, LayerKind::kEmbedding,
            {0, {kDigitStd}});
        return f32(name + ".start", {d}, LayerKind::kEmbedding, {0, {kPositionStd}});
      case Kind::kAxial:
        for (std::size_t axis = 0; axis < p.shape.size(); ++axis) {
          position_table(fmt::format("{}.axis.{}", name, axis), p.shape[axis], p.dims[axis], kPositionStd);
        }
        return;
      case Kind::kInfinite: {
        const float std = std_of_row(kPositionStd, d);
        return f32(name + ".weight", {d, d}, LayerKind::kEmbedding, {0, {std}}, 1);
      }
      case Kind::kNone:
      case Kind::kSinCos:
      case Kind::kTimeBin:
        return;
    }
  }

  void stack(const std::string& name, const StackConfig& s, std::uint64_t d) {
    position(name + ".position", s.position, d);
    const bool has_cross = config_.family == Family::kTransformer && per_token_;
    // Every sublayer adds to the residual stream; together they shall add about as much as the embedding.
    const std::uint64_t sublayers = std::uint64_t{s.n_layers} * (s.n_attention + 1 + (has_cross ? 1 : 0));
    const float gain = std_of_row(1, sublayers);
    for (const StackStep& step : stack_steps(config_, s)) {
      const std::string block = fmt::format("{}.blocks.{}", name, step.block);
      if (step.kind == StackStep::Kind::kForget && s.forget_dense) {
        dense(block + ".forget", step.d_model, step.d_model, LayerKind::kOther, 1);
      }
      if (step.kind != StackStep::Kind::kBlock) continue;
      if (is_routed(s, step.block)) {
        depth_router(block + ".depth", *s.depths, step.d_model);
        share_ = s.depths->capacity;
      }
      for (std::uint32_t j = 0; j < s.n_attention; ++j) {
        const std::string sublayer = fmt::format("{}.attention.{}", block, j);
        norm(sublayer + ".norm", step.d_model);
        attention(sublayer, attention_of(config_, s, step.block, step.d_model), step.d_model, gain);
      }
      if (has_cross) {
        norm(block + ".cross.norm", step.d_model);
        cross_attention(block + ".cross", s.cross, step.d_model, gain);
      }
      if (!s.parallel) norm(block + ".ff.norm", step.d_model);
      feed_forward(block + ".ff", s.ff, step.d_model, step.d_ff, gain);
      share_ = 1;
    }
  }

  void depth_router(const std::string& name, const DepthsConfig& depths, std::uint64_t d) {
    constexpr LayerKind kKind = LayerKind::kController;
    const auto vector = [&](const std::string& tensor, Shape shape, float gain) {
      const float std = std_of_row(gain, shape.back());
      f32(name + tensor, std::move(shape), kKind, {0, {std}}, 1);
    };
    vector(".router", {d}, 1);
    if (depths.predictor_width == 0) return;
    vector(".predictor.in.weight", {depths.predictor_width, d}, kRelu);
    bias(name + ".predictor.in.bias", {depths.predictor_width}, kKind);
    vector(".predictor.out.weight", {1, depths.predictor_width}, 1);
    bias(name + ".predictor.out.bias", {1}, kKind);
  }

  void encoder(const StackConfig& s, std::uint64_t d) {
    if (s.d_input) {
      dense("encoder.input", s.d_input, d, LayerKind::kOther, 1);
    } else {
      per_token_ = config_.shared_embedding;  // the decoder reads a row of it for each token
      table("encoder.embedding", s.vocab_size, d);
      per_token_ = false;
    }
    stack("encoder", s, d);
    const bool joined = config_.family == Family::kTerraformer && !s.reversible;
    if (joined) dense("encoder.join", d, d, LayerKind::kOther, 1);
    if (joined || config_.family == Family::kTransformer) norm("encoder.norm", d);
  }

  const ModelConfig& config_;
  bool is_rms_;
  bool per_token_ = false;  ///< whether decoding a token reads what is being added
  double share_ = 1;        ///< of the tokens, that read it
  std::vector<PlannedTensor> plan_;
};

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
  return PlanBuilder(config).build();
}

}  // namespace terrace
