// SPDX-License-Identifier: Apache-2.0
#include "models/presets.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <utility>

#include "engine/error.h"

namespace terrace {
namespace {

constexpr std::uint32_t kVocabulary = 32000;

AttentionConfig sparse_attention(std::uint32_t n_modules) {
  AttentionConfig a;
  a.kind = AttentionConfig::Kind::kMultiplicativeConv;
  a.n_modules = n_modules;
  a.kernel_size = 3;
  return a;
}

FeedForwardConfig sparse_feed_forward(std::uint32_t block_size, std::uint32_t d_lowrank, SruConfig sru = {}) {
  FeedForwardConfig f;
  f.kind = FeedForwardConfig::Kind::kSparse;
  f.block_size = block_size;
  f.d_lowrank = d_lowrank;
  f.sru = sru;
  return f;
}

ProjectionConfig mult_logits(std::uint32_t n_modules) {
  ProjectionConfig p;
  p.kind = ProjectionConfig::Kind::kMult;
  p.n_modules = n_modules;
  return p;
}

/// Dense attention and feed-forward, learned positions.
StackConfig dense_stack(std::uint32_t n_layers, std::uint32_t max_len) {
  StackConfig s;
  s.n_layers = n_layers;
  s.position.kind = PositionConfig::Kind::kLearned;
  s.position.max_len = max_len;
  s.attention.emplace_back();
  return s;
}

ModelConfig language_model(std::uint32_t d_model, std::uint32_t d_ff, std::uint32_t n_layers,
                           std::uint32_t n_heads, std::uint32_t max_len) {
  ModelConfig c;
  c.family = Family::kTransformerLm;
  c.d_model = d_model;
  c.d_ff = d_ff;
  c.n_heads = n_heads;
  c.vocab_size = kVocabulary;
  c.max_context = max_len;
  c.decoder = dense_stack(n_layers, max_len);
  return c;
}

ModelConfig terraformer(std::uint32_t d_model, std::uint32_t d_ff, std::uint32_t n_encoder,
                        std::uint32_t n_decoder, std::uint32_t n_heads, std::uint32_t max_len) {
  ModelConfig c = language_model(d_model, d_ff, n_decoder, n_heads, max_len);
  c.family = Family::kTerraformer;
  c.shared_embedding = true;
  c.decoder.n_attention = 2;
  c.encoder = dense_stack(n_encoder, max_len);
  c.encoder->vocab_size = kVocabulary;
  return c;
}

Preset lm_default() {
  Preset p{"lm-default",
           "Trax ConfigurableTransformerLM with its defaults",
           language_model(512, 2048, 6, 8, 2048),
           {}};
  // With d_ff = 2048 the sparse model would drop to two thirds of the parameters; here d_ff makes up for
  // them, as it does in the paper's own models.
  ModelConfig c = language_model(512, 4608, 6, 8, 2048);
  c.decoder.attention = {sparse_attention(8)};
  c.decoder.ff = sparse_feed_forward(32, 64);
  c.logits = mult_logits(4);
  p.sparse = std::move(c);
  return p;
}

Preset lm1b_24l() {
  Preset p{"lm1b-24L",
           "24 layers, 0.37B (Trax sparse_lm1b_pretrain)",
           language_model(1024, 4096, 24, 16, 2048),
           {}};
  ModelConfig c = language_model(1024, 6144, 24, 16, 2048);
  c.decoder.attention = {sparse_attention(16)};
  c.decoder.ff = sparse_feed_forward(64, 96);
  c.logits = mult_logits(4);
  p.sparse = std::move(c);
  return p;
}

Preset c4_medium() {
  Preset p{"c4-medium",
           "Terraformer, 24 + 24 layers, 0.85B (Trax terraformer_c4_medium)",
           terraformer(1024, 4096, 24, 24, 16, 32768),
           {}};
  p.dense.encoder->reversible = true;
  ModelConfig c = terraformer(1024, 6144, 24, 24, 16, 32768);
  c.encoder->reversible = true;
  c.encoder->ff = sparse_feed_forward(64, 96, {.n_layers = 1, .width = 32});
  c.decoder.ff = c.encoder->ff;
  c.decoder.attention = {sparse_attention(16)};
  c.logits = mult_logits(4);
  p.sparse = std::move(c);
  return p;
}

AttentionConfig lsh_attention() {
  AttentionConfig a;
  a.kind = AttentionConfig::Kind::kLsh;
  a.chunk_len = 128;
  a.n_chunks_before = 1;
  a.n_hashes = 2;
  a.n_buckets = {128};
  a.mem_len = a.drop_len = 16384;
  return a;
}

/// The dense side is Trax's; no file of Trax's makes it sparse. Its sparse layers are those of c4-medium,
/// with LSH attention on sparse queries, keys and values.
Preset scientific_papers() {
  Preset p{"scientific-papers",
           "Terraformer with LSH attention for long documents, 8 + 8 layers, 0.28B (Trax "
           "scientific_papers_terraformer)",
           terraformer(1024, 4096, 8, 8, 8, 16384),
           {}};
  const AttentionConfig lsh = lsh_attention();
  for (StackConfig* stack : {&p.dense.decoder, &*p.dense.encoder}) {
    stack->position = {};
    stack->position.kind = PositionConfig::Kind::kFixedBase;
    stack->attention = {lsh};
  }
  p.dense.encoder->attention[0].n_chunks_after = 1;
  ModelConfig c = p.dense;
  c.d_ff = 6144;
  c.encoder->ff = sparse_feed_forward(64, 96, {.n_layers = 1, .width = 32});
  c.decoder.ff = c.encoder->ff;
  AttentionConfig& attention = c.decoder.attention[0];
  attention.kind = AttentionConfig::Kind::kPureLsh;
  attention.sparse_format = true;
  attention.n_modules = 16;
  c.logits = mult_logits(4);
  p.sparse = std::move(c);
  return p;
}

Preset llama() {
  ModelConfig c = language_model(1536, 4096, 24, 12, 32768);
  c.norm = {.kind = NormConfig::Kind::kRmsNorm, .epsilon = 1e-5F};
  c.decoder.position = {};
  c.decoder.position.kind = PositionConfig::Kind::kNone;
  c.decoder.attention[0].rotary = RotaryConfig{};
  c.decoder.ff.activation = Activation::kSilu;
  c.decoder.ff.gated = true;
  return {"llama-0.8B", "LLaMA shape, 24 layers, 0.78B: RMSNorm, rotary positions, SwiGLU", std::move(c), {}};
}

// The 17B shapes take every size from Trax's timing script and the number of layers that gives 17 billion
// parameters.

Preset lm_17b() {
  Preset p{"lm-17B", "17 billion parameters, decoder only", language_model(9216, 40960, 15, 96, 2048), {}};
  ModelConfig c = language_model(9216, 65536, 14, 96, 2048);
  c.decoder.attention = {sparse_attention(64)};
  c.decoder.ff = sparse_feed_forward(256, 32);
  c.logits = mult_logits(8);
  p.sparse = std::move(c);
  return p;
}

Preset terraformer_17b() {
  Preset p{
      "terraformer-17B", "Terraformer, 17 billion parameters", terraformer(9216, 40960, 2, 10, 96, 2048), {}};
  ModelConfig c = terraformer(9216, 65536, 1, 12, 96, 2048);
  c.encoder->ff = sparse_feed_forward(256, 32, {.n_layers = 1, .width = 64});
  c.decoder.ff = c.encoder->ff;
  c.decoder.attention = {sparse_attention(64)};
  c.logits = mult_logits(8);
  p.sparse = std::move(c);
  return p;
}

constexpr std::array kPresets{
    std::pair<std::string_view, Preset (*)()>{"lm-default", lm_default},
    std::pair<std::string_view, Preset (*)()>{"lm1b-24L", lm1b_24l},
    std::pair<std::string_view, Preset (*)()>{"llama-0.8B", llama},
    std::pair<std::string_view, Preset (*)()>{"c4-medium", c4_medium},
    std::pair<std::string_view, Preset (*)()>{"scientific-papers", scientific_papers},
    std::pair<std::string_view, Preset (*)()>{"terraformer-17B", terraformer_17b},
    std::pair<std::string_view, Preset (*)()>{"lm-17B", lm_17b},
};

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  names.reserve(kPresets.size());
  for (const auto& [name, make] : kPresets) names.emplace_back(name);
  return names;
}

Preset find_preset(std::string_view name) {
  for (const auto& [known, make] : kPresets) {
    if (known == name) return make();
  }
  throw Error(ErrorCode::kBadArgument,
              fmt::format("there is no preset '{}'; known: {}", name, fmt::join(preset_names(), ", ")));
}

ModelConfig preset_config(std::string_view name, bool dense) {
  Preset preset = find_preset(name);
  if (dense) return std::move(preset.dense);
  TERRACE_CHECK(preset.sparse.has_value(), kBadArgument,
                fmt::format("preset '{}' has no sparse variant; ask for the dense one", name));
  return std::move(*preset.sparse);
}

ModelConfig decoder_as_language_model(const ModelConfig& config) {
  if (!config.encoder) return config;
  ModelConfig c = config;
  c.family = Family::kTransformerLm;
  c.encoder.reset();
  c.shared_embedding = false;
  return c;
}

}  // namespace terrace
