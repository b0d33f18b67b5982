// SPDX-License-Identifier: Apache-2.0
// Which configurations describe a model.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "models/config.h"
#include "models/config_names.h"

namespace terrace {
namespace {

// Bounds that no sensible model exceeds; they keep every product of two sizes far from overflow.
constexpr std::uint32_t kMaxWidth = 1U << 20;
constexpr std::uint32_t kMaxHeads = 1U << 15;  // a phase may have a chunk for each
constexpr std::uint32_t kMaxLayers = 4096;
constexpr std::uint32_t kMaxVocabulary = 1U << 24;
constexpr std::uint32_t kMaxContext = 1U << 28;

/// 'a, b or c'.
std::string one_of(std::vector<const char*> names) {
  const std::string last = names.back();
  names.pop_back();
  return names.empty() ? last : fmt::format("{} or {}", fmt::join(names, ", "), last);
}

class Checker {
 public:
  explicit Checker(std::string where) : where_(std::move(where)) {}

  void require(bool ok, const std::string& message) const {
    if (!ok) throw Error(ErrorCode::kBadConfig, "model configuration: " + where_ + message);
  }
  void range(const char* name, std::uint32_t value, std::uint32_t low, std::uint32_t high) const {
    require(value >= low && value <= high,
            fmt::format("'{}' must be from {} to {}, found {}", name, low, high, value));
  }
  void divides(const char* part, std::uint32_t divisor, const char* whole, std::uint32_t value) const {
    require(divisor > 0 && value % divisor == 0,
            fmt::format("'{}' ({}) must divide '{}' ({})", part, divisor, whole, value));
  }
  /// A key that only layers of some kinds read must not be given to others: it would do nothing.
  template <class Kind, std::size_t N>
  void belongs(const char* key, bool given, const std::array<EnumName<Kind>, N>& names, Kind found,
               std::initializer_list<Kind> kinds) const {
    if (!given || std::find(kinds.begin(), kinds.end(), found) != kinds.end()) return;
    std::vector<const char*> readers;
    for (const Kind kind : kinds) readers.push_back(name_of(names, kind));
    require(false, fmt::format("'{}' is read by kind {} only, found kind {}", key, one_of(std::move(readers)),
                               name_of(names, found)));
  }

 private:
  std::string where_;
};

void validate_projection(const ProjectionConfig& p, std::uint32_t d_in, std::uint32_t d_out,
                         const Checker& check) {
  using Kind = ProjectionConfig::Kind;
  const auto belongs = [&](const char* key, bool given, std::initializer_list<Kind> kinds) {
    check.belongs(key, given, kProjections, p.kind, kinds);
  };
  belongs("n_modules", p.n_modules != 0, {Kind::kMult, Kind::kMultModular, Kind::kConv, Kind::kLocal});
  belongs("kernel_size", p.kernel_size != 0, {Kind::kConv, Kind::kLocal});
  belongs("rank", p.rank != 0, {Kind::kLowRank});
  switch (p.kind) {
    case Kind::kDense:
      return;
    case Kind::kLowRank:
      check.range("rank", p.rank, 1, kMaxWidth);
      return;
    case Kind::kMultModular:
      check.require(d_in == d_out, "a mult_modular projection must keep the width");
      [[fallthrough]];
    case Kind::kMult:
      check.divides("n_modules", p.n_modules, "output width", d_out);
      return;
    case Kind::kConv:
    case Kind::kLocal:
      check.divides("n_modules", p.n_modules, "output width", d_out);
      check.divides("n_modules", p.n_modules, "input width", d_in);
      check.require(p.n_modules == 1 || p.kernel_size % 2 == 1,
                    fmt::format("'kernel_size' must be odd, found {}", p.kernel_size));
      check.require(p.n_modules == 1 || p.kernel_size <= 2 * p.n_modules + 1,
                    "'kernel_size' exceeds the modules");
      return;
  }
}

void validate_position(const PositionConfig& p, std::uint32_t d, const Checker& check) {
  using Kind = PositionConfig::Kind;
  const auto belongs = [&](const char* key, bool given, std::initializer_list<Kind> kinds) {
    check.belongs(key, given, kPositions, p.kind, kinds);
  };
  belongs("position.max_len", p.max_len != 0, {Kind::kLearned, Kind::kLowRank});
  belongs("position.rank", p.rank != 0, {Kind::kLowRank});
  belongs("position.drift", p.drift != PositionConfig().drift, {Kind::kInfinite});
  belongs("position.bin_length", p.bin_length != 0, {Kind::kTimeBin});
  belongs("position.shape", !p.shape.empty(), {Kind::kAxial});
  belongs("position.dims", !p.dims.empty(), {Kind::kAxial});
  switch (p.kind) {
    case Kind::kNone:
      return;
    case Kind::kLowRank:
      check.range("position.rank", p.rank, 1, kMaxWidth);
      [[fallthrough]];
    case Kind::kLearned:
      check.range("position.max_len", p.max_len, 1, kMaxContext);
      return;
    case Kind::kSinCos:
      check.divides("2", 2, "d_model", d);
      return;
    case Kind::kFixedBase:
      check.divides("8", 8, "d_model", d);
      return;
    case Kind::kInfinite:
      check.divides("2", 2, "d_model", d);
      check.require(p.drift >= 0 && p.drift <= 1,
                    fmt::format("'position.drift' must lie between 0 and 1, found {}", p.drift));
      return;
    case Kind::kTimeBin:
      check.range("position.bin_length", p.bin_length, 1, kMaxContext);
      check.require(d >= 3, "time_bin positions need at least 3 channels");
      return;
    case Kind::kAxial: {
      check.require(!p.shape.empty() && p.shape.size() == p.dims.size() && p.shape.size() <= 16,
                    "'position.shape' and 'position.dims' must be lists of equal length, 1 to 16");
      std::uint64_t positions = 1;
      std::uint64_t width = 0;
      for (std::size_t a = 0; a < p.shape.size(); ++a) {
        check.range("position.shape", p.shape[a], 1, kMaxContext);
        check.range("position.dims", p.dims[a], 1, kMaxWidth);
        positions *= p.shape[a];
        width += p.dims[a];
        check.require(positions <= kMaxContext, "'position.shape' describes too many positions");
      }
      check.require(width == d,
                    fmt::format("'position.dims' must add up to d_model ({}), found {}", d, width));
      return;
    }
  }
}

void validate_lsh(const AttentionConfig& a, const Checker& check) {
  check.range("chunk_len", a.chunk_len, 1, kMaxContext);
  check.range("n_hashes", a.n_hashes, 1, 64);
  check.range("mem_len", a.mem_len, 1, kMaxContext);
  check.range("drop_len", a.drop_len, 1, a.mem_len);
  std::uint64_t buckets = 1;
  for (const std::uint32_t factor : a.n_buckets) {
    check.require(factor >= 2 && factor % 2 == 0, fmt::format("'n_buckets' must be even, found {}", factor));
    buckets *= factor;
    check.require(buckets <= (1U << 20), "'n_buckets' describes too many buckets");
  }
}

/// Memory of `self` attention, with the lengths that follow from its chunks where none are given.
void validate_window(const AttentionConfig& a, const Checker& check) {
  const std::uint64_t memory =
      a.mem_len ? a.mem_len : std::uint64_t{a.chunk_len} * (1 + std::uint64_t{a.n_chunks_before});
  const std::uint32_t drop = a.drop_len ? a.drop_len : std::max(1U, a.chunk_len);
  check.require(memory == 0 || drop <= memory,
                fmt::format("'drop_len' ({}) must not exceed 'mem_len' ({})", drop, memory));
}

void validate_attention_keys(const AttentionConfig& a, const Checker& check) {
  using Kind = AttentionConfig::Kind;
  const AttentionConfig defaults;
  const auto belongs = [&](const char* key, bool given, std::initializer_list<Kind> kinds) {
    check.belongs(key, given, kAttentions, a.kind, kinds);
  };
  belongs("projection", a.projection.kind != ProjectionConfig::Kind::kDense,
          {Kind::kDotProduct, Kind::kFavor});
  belongs("n_kv_heads", a.n_kv_heads != 0, {Kind::kDotProduct});
  belongs("d_value", a.d_value != 0, {Kind::kSelf, Kind::kLsh, Kind::kPureLsh, Kind::kMixedLsh});
  belongs("use_dconv", a.use_dconv, {Kind::kDotProduct});
  belongs("causal", a.causal, {Kind::kDotProduct, Kind::kMultiplicativeConv, Kind::kFavor});
  belongs("rotary", a.rotary.has_value(), {Kind::kDotProduct, Kind::kPureLsh, Kind::kMixedLsh});
  belongs("n_modules", a.n_modules != 0, {Kind::kMultiplicativeConv, Kind::kPureLsh, Kind::kMixedLsh});
  belongs("kernel_size", a.kernel_size != defaults.kernel_size, {Kind::kMultiplicativeConv});
  belongs("share_qk", a.share_qk, {Kind::kMultiplicativeConv, Kind::kSelf});
  belongs("v_concat", a.v_concat != defaults.v_concat, {Kind::kMultiplicativeConv});
  belongs("output", a.output != defaults.output, {Kind::kMultiplicativeConv});
  const std::initializer_list<Kind> chunked = {Kind::kSelf, Kind::kLsh, Kind::kPureLsh, Kind::kMixedLsh};
  belongs("chunk_len", a.chunk_len != 0, chunked);
  belongs("n_chunks_before", a.n_chunks_before != 0, chunked);
  belongs("n_chunks_after", a.n_chunks_after != 0, chunked);
  belongs("mem_len", a.mem_len != 0, chunked);
  belongs("drop_len", a.drop_len != 0, chunked);
  const std::initializer_list<Kind> hashed = {Kind::kLsh, Kind::kPureLsh, Kind::kMixedLsh};
  belongs("n_hashes", a.n_hashes != defaults.n_hashes, hashed);
  belongs("n_buckets", !a.n_buckets.empty(), hashed);
  belongs("n_weights", a.n_weights != defaults.n_weights, {Kind::kPureLsh, Kind::kMixedLsh});
  belongs("weights_format", a.sparse_format, {Kind::kPureLsh, Kind::kMixedLsh});
  belongs("std_length", a.std_length != 0, {Kind::kMixedLsh});
  belongs("softmax_features", a.softmax_features != 0, {Kind::kFavor});
}

void validate_scaling(const RotaryScaling& s, const Checker& check) {
  using Kind = RotaryScaling::Kind;
  check.require(s.kind != Kind::kNone || s == RotaryScaling{}, "'rotary.scaling' needs a 'kind'");
  check.require(s.factor >= 1, fmt::format("'rotary.scaling.factor' must be at least 1, found {}", s.factor));
  check.require(
      s.low_freq_factor > 0 && s.low_freq_factor < s.high_freq_factor,
      fmt::format("'rotary.scaling.low_freq_factor' must lie between 0 and 'high_freq_factor' ({}), found {}",
                  s.high_freq_factor, s.low_freq_factor));
  check.range("rotary.scaling.original_max_len", s.original_max_len, 1, kMaxContext);
}

void validate_attention(const AttentionConfig& a, std::uint32_t d, std::uint32_t n_heads, bool in_encoder,
                        const Checker& check) {
  using Kind = AttentionConfig::Kind;
  validate_attention_keys(a, check);
  const std::uint32_t d_head = a.d_head ? a.d_head : d / n_heads;
  if (a.d_head == 0) check.divides("n_heads", n_heads, "d_model", d);
  check.range("d_head", d_head, 1, kMaxWidth / n_heads);
  check.range("d_value", a.d_value, 0, kMaxWidth / n_heads);
  check.range("n_chunks_before", a.n_chunks_before, 0, 1024);
  check.range("n_chunks_after", a.n_chunks_after, 0, 1024);
  if (a.rotary) {
    check.divides("2", 2, "d_head", d_head);
    check.require(a.rotary->base > 0, "'rotary.base' must be positive");
    validate_scaling(a.rotary->scaling, check);
  }
  check.require(!a.causal || in_encoder, "'causal' belongs to an encoder: a decoder always is");
  check.require(!a.use_dconv || !in_encoder || a.causal, "'use_dconv' belongs to causal attention");
  check.require(!a.softmax_features || (in_encoder && !a.causal),
                "'softmax_features' have no causal form: they belong to an encoder");
  const std::uint32_t n_kv_heads = a.n_kv_heads ? a.n_kv_heads : n_heads;
  check.divides("n_kv_heads", n_kv_heads, "n_heads", n_heads);
  switch (a.kind) {
    case Kind::kDotProduct:
    case Kind::kFavor:
      validate_projection(a.projection, d, n_heads * d_head, check);
      validate_projection(a.projection, d, n_kv_heads * d_head, check);
      validate_projection(a.projection, n_heads * d_head, d, check);
      return;
    case Kind::kMultiplicativeConv:
      check.require(!in_encoder || a.causal,
                    "multiplicative_conv attention in an encoder is causal: it needs 'causal': true");
      check.require(n_heads * d_head == d, "multiplicative_conv needs n_heads * d_head = d_model");
      check.divides("n_modules", a.n_modules, "d_model", d);
      check.range("kernel_size", a.kernel_size, 1, 64);
      check.require(
          a.v_concat != AttentionConfig::VConcat::kOriginal || a.n_modules == 1 || a.n_modules % 2 == 0,
          "v_concat 'original' needs an even n_modules");
      return;
    case Kind::kSelf:
      if (a.chunk_len == 0) {
        check.require(a.n_chunks_before == 0 && a.n_chunks_after == 0, "neighbour chunks need a 'chunk_len'");
      }
      check.range("chunk_len", a.chunk_len, 0, kMaxContext);
      check.range("mem_len", a.mem_len, 0, kMaxContext);
      check.range("drop_len", a.drop_len, 0, kMaxContext);
      validate_window(a, check);
      return;
    case Kind::kLsh:
      validate_lsh(a, check);
      return;
    case Kind::kPureLsh:
    case Kind::kMixedLsh:
      validate_lsh(a, check);
      check.range("n_weights", a.n_weights, 2, 3);
      if (a.sparse_format) {
        check.divides("n_modules", a.n_modules, "n_heads * d_head", n_heads * d_head);
        check.require(
            a.d_value == 0 || a.d_value == d_head,
            fmt::format("'d_value' must equal d_head ({}) in the sparse format, whose values are the "
                        "layer's output; found {}",
                        d_head, a.d_value));
      }
      check.require(n_heads * d_head == d, "pure_lsh needs n_heads * d_head = d_model");
      return;
  }
}

void validate_feed_forward(const FeedForwardConfig& f, std::uint32_t d_ff, const Checker& check) {
  using Kind = FeedForwardConfig::Kind;
  const auto belongs = [&](const char* key, bool given, std::initializer_list<Kind> kinds) {
    check.belongs(key, given, kFeedForwards, f.kind, kinds);
  };
  belongs("activation", f.activation != Activation::kRelu, {Kind::kDense});
  belongs("gated", f.gated, {Kind::kDense, Kind::kExperts});
  belongs("block_size", f.block_size != 0, {Kind::kSparse});
  belongs("d_lowrank", f.d_lowrank != 0, {Kind::kSparse});
  belongs("multiply_by_controller", f.multiply_by_controller, {Kind::kSparse});
  belongs("n_experts", f.n_experts != 0, {Kind::kBlock, Kind::kSwitch, Kind::kExperts});
  belongs("n_active", f.n_active != 0, {Kind::kExperts});
  belongs("widths", !f.widths.empty(), {Kind::kDense, Kind::kSparse});
  check.range("sru.n_layers", f.sru.n_layers, 0, 64);
  check.range("sru.width", f.sru.width, 1, kMaxWidth);
  if (f.kind == Kind::kSparse) {
    check.divides("block_size", f.block_size, "d_ff", d_ff);
    check.range("d_lowrank", f.d_lowrank, 1, kMaxWidth);
  }
  if (f.kind == Kind::kBlock || f.kind == Kind::kSwitch || f.kind == Kind::kExperts)
    check.divides("n_experts", f.n_experts, "d_ff", d_ff);
  if (f.kind == Kind::kExperts) check.range("n_active", f.n_active, 1, f.n_experts);
  std::uint32_t previous = 0;
  for (const std::uint32_t width : f.widths) {
    check.require(width > previous && width <= d_ff, "'widths' must ascend and end at d_ff");
    if (f.kind == Kind::kSparse) check.divides("block_size", f.block_size, "widths", width);
    previous = width;
  }
  check.require(f.widths.empty() || previous == d_ff, "'widths' must end at d_ff");
}

void validate_stack(const ModelConfig& c, const StackConfig& s, bool is_encoder) {
  const Checker check(is_encoder ? "encoder: " : "decoder: ");
  const bool reversible_family = c.family == Family::kTerraformer || c.family == Family::kReformerLm;
  const CrossAttentionConfig& cross = s.cross;
  const bool has_cross = cross.q_modules != 0 || cross.out_modules != 0 || !cross.has_output;
  check.require(!has_cross || (c.family == Family::kTransformer && !is_encoder),
                "'cross' belongs to the decoder of a transformer");
  check.require(is_encoder || (s.vocab_size == 0 && s.d_input == 0),
                "'vocab_size' and 'd_input' of a stack belong to an encoder");
  const bool joined_encoder = is_encoder && c.family == Family::kTerraformer;
  check.require(joined_encoder || !s.reversible, "'reversible' belongs to the encoder of a terraformer");
  check.require(joined_encoder || s.two_swaps, "'two_swaps' belongs to the encoder of a terraformer");
  check.range("n_layers", s.n_layers, 1, kMaxLayers);
  check.range("n_attention", s.n_attention, 1, 16);
  // In a transformer_lm: a Terraformer's decoder run as a language model.
  const bool decoder_family = c.family == Family::kTerraformer || c.family == Family::kTransformerLm;
  check.require(s.n_attention == 1 || (decoder_family && !is_encoder && !s.parallel),
                "'n_attention' above 1 belongs to a decoder of terraformer or transformer_lm, not parallel");
  check.require(!s.attention.empty(), "'attention' must name at least one layer");
  check.require(!s.parallel || c.family == Family::kTransformerLm, "'parallel' belongs to transformer_lm");
  check.require(reversible_family || (s.forget_every == 0 && !s.half_before_layer && !s.double_after_layer),
                "'forget_every', 'half_before_layer' and 'double_after_layer' belong to terraformer");
  check.require(
      c.family != Family::kReformerLm || (!s.half_before_layer && !s.double_after_layer && !s.forget_every),
      "reformer_lm has no forgetting or width-changing layers");
  check.require(
      !is_encoder || (!s.half_before_layer && !s.double_after_layer),
      "'half_before_layer' and 'double_after_layer' are set in the decoder and change the encoder too");
  if (s.half_before_layer) {
    check.range("half_before_layer", *s.half_before_layer, 1, s.n_layers);
    check.divides("2", 2, "d_model", c.d_model);
    check.divides("2", 2, "d_ff", c.d_ff);
  }
  if (s.double_after_layer) {
    check.range("double_after_layer", *s.double_after_layer, 0, s.n_layers - 1);
    check.require(!s.half_before_layer || *s.double_after_layer >= *s.half_before_layer,
                  "'double_after_layer' must not come before 'half_before_layer'");
  }
  const bool any_attention = is_encoder || !s.parallel;
  for (const AttentionConfig& a : s.attention) {
    using Kind = AttentionConfig::Kind;
    check.require(any_attention || a.kind == Kind::kDotProduct || a.kind == Kind::kMultiplicativeConv ||
                      a.kind == Kind::kFavor,
                  "parallel blocks take dot_product, multiplicative_conv or favor");
  }
  if (s.depths) {
    check.require(c.family == Family::kTransformerLm, "'mixture_of_depths' belongs to transformer_lm");
    check.range("mixture_of_depths.every", s.depths->every, 1, s.n_layers);
    check.require(s.depths->capacity > 0 && s.depths->capacity <= 1,
                  fmt::format("'mixture_of_depths.capacity' must lie above 0 and at most at 1, found {}",
                              s.depths->capacity));
    check.range("mixture_of_depths.predictor_width", s.depths->predictor_width, 0, kMaxWidth);
  }
  validate_position(s.position, embedding_width(c), check);
  std::optional<std::uint32_t> forgot_after;
  for (const StackStep& step : stack_steps(c, s)) {
    if (step.kind == StackStep::Kind::kForget) {
      check.require(forgot_after != step.block,
                    fmt::format("'forget_every' ({}) puts two forgetting layers after block {}",
                                s.forget_every, step.block));
      forgot_after = step.block;
    }
    if (step.kind != StackStep::Kind::kBlock) continue;
    const AttentionConfig& given = s.attention[step.block % s.attention.size()];
    for (const std::uint32_t size : {given.d_head, given.d_value}) {
      check.require(
          std::uint64_t{size} * step.d_model % c.d_model == 0,
          fmt::format("heads of {} channels cannot follow the width of block {}", size, step.block));
    }
    validate_attention(attention_of(c, s, step.block, step.d_model), step.d_model, c.n_heads, is_encoder,
                       check);
    validate_feed_forward(s.ff, step.d_ff, check);
  }
}

}  // namespace

void validate(const ModelConfig& c) {
  const Checker check("");
  check.range("d_model", c.d_model, 1, kMaxWidth);
  check.range("d_ff", c.d_ff, 1, kMaxWidth);
  check.range("n_heads", c.n_heads, 1, kMaxHeads);
  check.range("vocab_size", c.vocab_size, 1, kMaxVocabulary);
  check.range("max_context", c.max_context, 1, kMaxContext);
  check.require(c.norm.epsilon > 0 && c.norm.epsilon < 1, "'norm.epsilon' must lie between 0 and 1");
  const bool has_encoder = c.family == Family::kTerraformer || c.family == Family::kTransformer;
  check.require(c.encoder.has_value() == has_encoder,
                has_encoder ? "this family needs an 'encoder'" : "this family has no 'encoder'");
  check.require(!c.shared_embedding || has_encoder, "'shared_embedding' needs an encoder");
  validate_stack(c, c.decoder, false);
  if (has_encoder) {
    const StackConfig& e = *c.encoder;
    validate_stack(c, e, true);
    check.require((e.vocab_size > 0) != (e.d_input > 0),
                  "encoder: exactly one of 'vocab_size' and 'd_input' is needed");
    check.range("encoder.vocab_size", e.vocab_size, 0, kMaxVocabulary);
    check.range("encoder.d_input", e.d_input, 0, kMaxWidth);
    check.require(!c.shared_embedding || e.vocab_size == c.vocab_size,
                  "'shared_embedding' needs equal vocabularies");
  }
  const CrossAttentionConfig& cross = c.decoder.cross;
  if (c.family == Family::kTransformer) {
    check.divides("n_heads", c.n_heads, "d_model", c.d_model);
    if (cross.q_modules) check.divides("cross.q_modules", cross.q_modules, "d_model", c.d_model);
    if (cross.out_modules) check.divides("cross.out_modules", cross.out_modules, "d_model", c.d_model);
  }
  validate_projection(c.logits, final_width(c), c.vocab_size, Checker("logits: "));

  const auto token = [&](const char* name, std::int32_t id, std::int32_t least, std::uint32_t n_ids) {
    check.require(id >= least && std::int64_t{id} < n_ids,
                  fmt::format("'tokens.{}' must be from {} to {}, found {}", name, least, n_ids - 1, id));
  };
  token("start", c.tokens.start, -1, c.vocab_size);
  token("end", c.tokens.end, -1, c.vocab_size);
  token("pad", c.tokens.pad, -1, c.vocab_size);
  if (has_encoder && c.encoder->vocab_size > 0) token("pad", c.tokens.pad, -1, c.encoder->vocab_size);
}

}  // namespace terrace
