// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attention/rotary_scaling.h"
#include "engine/activation.h"
#include "sparse/v_concat.h"

namespace terrace {

// The configuration of a model, field by field as in docs/model-file.md ("Configuration"), which is the
// reference for names, defaults and meaning. Plain data; validate() says whether it describes a model.

enum class Family { kTransformerLm, kTerraformer, kReformerLm, kTransformer };

struct NormConfig {
  enum class Kind { kLayerNorm, kRmsNorm } kind = Kind::kLayerNorm;
  float epsilon = 1e-6F;
};

struct PositionConfig {
  enum class Kind { kNone, kLearned, kLowRank, kSinCos, kFixedBase, kInfinite, kAxial, kTimeBin };
  Kind kind = Kind::kLearned;
  std::uint32_t max_len = 0;  ///< learned, low-rank
  std::uint32_t rank = 0;     ///< low-rank
  float drift = 0.03F;        ///< infinite
  std::uint32_t bin_length = 0;
  std::vector<std::uint32_t> shape;  ///< axial
  std::vector<std::uint32_t> dims;   ///< axial
};

/// A linear map that may be a sparse replacement of a dense one (trax/layers/research/sparsity.py).
struct ProjectionConfig {
  enum class Kind { kDense, kMult, kMultModular, kConv, kLocal, kLowRank };
  Kind kind = Kind::kDense;
  std::uint32_t n_modules = 0;
  std::uint32_t kernel_size = 0;  ///< modules seen (Km); conv, local
  std::uint32_t rank = 0;
};

struct RotaryConfig {
  float base = 10000.0F;
  bool interleaved = false;  ///< pairs (2i, 2i+1) instead of (i, i + d_head/2)
  RotaryScaling scaling;

  friend auto operator<=>(const RotaryConfig&, const RotaryConfig&) = default;
};

struct AttentionConfig {
  enum class Kind { kDotProduct, kMultiplicativeConv, kSelf, kLsh, kPureLsh, kMixedLsh, kFavor };
  using VConcat = terrace::VConcat;
  enum class Output { kNone, kMult, kConv, kMultConv };
  Kind kind = Kind::kDotProduct;
  // dot_product
  ProjectionConfig projection;
  std::uint32_t n_kv_heads = 0;  ///< 0 = n_heads
  std::uint32_t d_head = 0;      ///< at d_model, see attention_of(); 0 = d_model / n_heads of the block
  std::uint32_t d_value = 0;     ///< 0 = d_head; self, lsh
  bool use_dconv = false;
  bool causal = false;  ///< in an encoder: a row sees no later rows; a decoder is always causal
  std::optional<RotaryConfig> rotary;
  // multiplicative_conv (and n_modules for the sparse format of pure_lsh)
  std::uint32_t n_modules = 0;
  std::uint32_t kernel_size = 3;  ///< time steps seen (Kl)
  bool share_qk = false;          ///< also self
  VConcat v_concat = VConcat::kNone;
  Output output = Output::kNone;
  // self, lsh
  std::uint32_t chunk_len = 0;  ///< 0 = unchunked
  std::uint32_t n_chunks_before = 0;
  std::uint32_t n_chunks_after = 0;
  std::uint32_t mem_len = 0;
  std::uint32_t drop_len = 0;
  std::uint32_t n_hashes = 1;
  std::vector<std::uint32_t> n_buckets;  ///< empty = derived from the length (Trax None)
  bool n_buckets_is_list = false;        ///< [n] and n hash alike, but a file keeps the form it had
  std::uint32_t n_weights = 3;           ///< pure_lsh, mixed_lsh
  bool sparse_format = false;            ///< pure_lsh weights_format
  std::uint32_t std_length = 0;          ///< mixed_lsh; 0 = always LSH
  std::uint32_t softmax_features = 0;    ///< favor; 0 = relu features
};

struct CrossAttentionConfig {
  std::uint32_t q_modules = 0;  ///< 0 = dense q; else mult + conv (kernel 3 x 3)
  std::uint32_t out_modules = 0;
  bool has_output = true;
};

struct SruConfig {
  std::uint32_t n_layers = 0;  ///< 0 = no SRU branch
  std::uint32_t width = 32;
};

struct FeedForwardConfig {
  enum class Kind { kDense, kSparse, kBlock, kSwitch, kExperts };
  Kind kind = Kind::kDense;
  Activation activation = Activation::kRelu;
  bool gated = false;
  std::uint32_t block_size = 0;
  std::uint32_t d_lowrank = 0;
  bool multiply_by_controller = false;
  std::uint32_t n_experts = 0;
  std::uint32_t n_active = 0;  ///< experts: how many a token uses unless a session says otherwise
  SruConfig sru;
  std::vector<std::uint32_t> widths;  ///< trained nested widths, ascending, last = d_ff; empty = only d_ff
};

/// The units of `d_ff` that a token uses unless a session says otherwise: all, or those of `n_active`
/// experts.
constexpr std::uint32_t default_width(const FeedForwardConfig& f, std::uint32_t d_ff) noexcept {
  return f.kind == FeedForwardConfig::Kind::kExperts ? d_ff / f.n_experts * f.n_active : d_ff;
}

/// Mixture-of-Depths: which blocks only some of the tokens run.
struct DepthsConfig {
  std::uint32_t every = 2;             ///< blocks every - 1, 2 * every - 1, ... are routed
  float capacity = 0.125F;             ///< share of the tokens that ran them in training
  std::uint32_t predictor_width = 32;  ///< 0: the router's own sign decides
};

struct StackConfig {
  std::uint32_t n_layers = 0;
  std::uint32_t n_attention = 1;  ///< attention sublayers per block
  bool center_norm = true;
  PositionConfig position;
  std::vector<AttentionConfig> attention;  ///< cycled over the blocks
  FeedForwardConfig ff;
  bool parallel = false;
  std::optional<DepthsConfig> depths;  ///< key "mixture_of_depths"
  // reversible families
  bool two_swaps = true;
  bool reversible = false;
  std::uint32_t forget_every = 0;
  bool forget_dense = true;
  std::optional<std::uint32_t> half_before_layer;
  std::optional<std::uint32_t> double_after_layer;
  // encoder only
  std::uint32_t vocab_size = 0;
  std::uint32_t d_input = 0;  ///< pre-embedded input width; 0 = tokens
  // decoder of `transformer` only
  CrossAttentionConfig cross;
};

struct TokensConfig {
  std::int32_t start = 0;
  std::int32_t end = -1;
  std::int32_t pad = 0;
};

struct ModelConfig {
  Family family = Family::kTransformerLm;
  std::uint32_t d_model = 0;
  std::uint32_t d_ff = 0;
  std::uint32_t n_heads = 0;
  std::uint32_t vocab_size = 0;
  std::uint32_t max_context = 0;
  NormConfig norm;
  bool shared_embedding = false;
  std::optional<StackConfig> encoder;
  StackConfig decoder;
  ProjectionConfig logits;
  TokensConfig tokens;
};

/// Whether only some of the tokens run block `index` of a stack.
bool is_routed(const StackConfig& stack, std::uint32_t index) noexcept;

/// One step along the depth of a stack. Only reversible families have other steps than blocks.
struct StackStep {
  enum class Kind {
    kBlock,
    kConcatenate,  ///< both streams become [x1 | x2]: the width doubles (half_before_layer,
                   ///< double_after_layer)
    kForget        ///< x1 = x2 = (x1 + x2) / 2, through a dense layer if forget_dense, else nothing
  } kind;
  std::uint32_t block;    ///< kBlock: its index; else: the block that came before
  std::uint32_t d_model;  ///< width of the streams before this step
  std::uint32_t d_ff;     ///< kBlock
};

/// The steps of the decoder (or of the encoder) in order, as in trax/models/research/terraformer.py. A
/// forgetting layer follows every `forget_every` steps while more than forget_every + 1 remain; a
/// concatenation counts as a step.
std::vector<StackStep> stack_steps(const ModelConfig& config, const StackConfig& stack);

/// Width of a stack's embedding: d_model, or half of it with `half_before_layer`.
std::uint32_t embedding_width(const ModelConfig& config) noexcept;

/// What fills a sequence up to the length that chunked layers need: tokens.pad, or any id where there is none.
constexpr std::int32_t padding_id(const ModelConfig& config) noexcept {
  return config.tokens.pad >= 0 ? config.tokens.pad : 0;
}

/// Scratch memory that an attention layer takes at most when the decoder or the encoder sees so many rows at
/// once, with room to spare: LSH attention keeps a row of values and a few numbers per row and hash round.
std::size_t attention_scratch_bytes(const ModelConfig& config, std::size_t n_decoder_rows,
                                    std::size_t n_encoder_rows);

/// Width that the final norm and the output layer see.
std::uint32_t final_width(const ModelConfig& config);

/// The attention configuration of block `i`, which is `d_model` wide: the list is cycled, and head sizes that
/// are given scale with the width of the block (half_before_layer, double_after_layer).
AttentionConfig attention_of(const ModelConfig& config, const StackConfig& stack, std::uint32_t i,
                             std::uint32_t d_model);

/// Parses the JSON of docs/model-file.md and validates it. Unknown keys are an error, so that a file that
/// needs a newer engine is refused. Throws Error{kBadConfig} naming the key, what was expected and what was
/// found.
ModelConfig parse_config(std::string_view text);

/// The JSON text of a configuration; parse_config(config_to_json(c)) describes the same model.
std::string config_to_json(const ModelConfig& config);

/// Throws Error{kBadConfig} unless every size is in range and every divisibility the layers need holds.
void validate(const ModelConfig& config);

}  // namespace terrace
