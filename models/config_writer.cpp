// SPDX-License-Identifier: Apache-2.0
// ModelConfig to JSON: docs/model-file.md, "Configuration".
#include <nlohmann/json.hpp>

#include "models/config.h"
#include "models/config_names.h"

namespace terrace {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const PositionConfig& p) {
  Json j = {{"kind", name_of(kPositions, p.kind)}};
  if (p.max_len) j["max_len"] = p.max_len;
  if (p.rank) j["rank"] = p.rank;
  if (p.kind == PositionKind::kInfinite) j["drift"] = p.drift;
  if (p.bin_length) j["bin_length"] = p.bin_length;
  if (!p.shape.empty()) j["shape"] = p.shape;
  if (!p.dims.empty()) j["dims"] = p.dims;
  return j;
}

Json to_json(const ProjectionConfig& p) {
  Json j = {{"kind", name_of(kProjections, p.kind)}};
  if (p.n_modules) j["n_modules"] = p.n_modules;
  if (p.kernel_size) j["kernel_size"] = p.kernel_size;
  if (p.rank) j["rank"] = p.rank;
  return j;
}

Json to_json(const RotaryConfig& r) {
  Json j = {{"base", r.base}, {"interleaved", r.interleaved}};
  const RotaryScaling& s = r.scaling;
  if (s.kind == RotaryScaling::Kind::kNone) return j;
  j["scaling"] = {{"kind", name_of(kRotaryScalings, s.kind)}, {"factor", s.factor}};
  if (s.kind == RotaryScaling::Kind::kLlama3) {
    j["scaling"]["low_freq_factor"] = s.low_freq_factor;
    j["scaling"]["high_freq_factor"] = s.high_freq_factor;
    j["scaling"]["original_max_len"] = s.original_max_len;
  }
  return j;
}

Json to_json(const AttentionConfig& a) {
  const AttentionConfig defaults;
  Json j = {{"kind", name_of(kAttentions, a.kind)}};
  if (a.projection.kind != ProjectionKind::kDense) j["projection"] = to_json(a.projection);
  const auto put = [&](const char* key, auto value, auto default_value) {
    if (value != default_value) j[key] = value;
  };
  put("n_kv_heads", a.n_kv_heads, defaults.n_kv_heads);
  put("d_head", a.d_head, defaults.d_head);
  put("d_value", a.d_value, defaults.d_value);
  put("use_dconv", a.use_dconv, defaults.use_dconv);
  put("causal", a.causal, defaults.causal);
  if (a.rotary) j["rotary"] = to_json(*a.rotary);
  put("n_modules", a.n_modules, defaults.n_modules);
  put("kernel_size", a.kernel_size, defaults.kernel_size);
  put("share_qk", a.share_qk, defaults.share_qk);
  if (a.v_concat != defaults.v_concat) j["v_concat"] = name_of(kVConcats, a.v_concat);
  if (a.output != defaults.output) j["output"] = name_of(kOutputs, a.output);
  put("chunk_len", a.chunk_len, defaults.chunk_len);
  put("n_chunks_before", a.n_chunks_before, defaults.n_chunks_before);
  put("n_chunks_after", a.n_chunks_after, defaults.n_chunks_after);
  put("mem_len", a.mem_len, defaults.mem_len);
  put("drop_len", a.drop_len, defaults.drop_len);
  put("n_hashes", a.n_hashes, defaults.n_hashes);
  if (a.n_buckets_is_list) {
    j["n_buckets"] = a.n_buckets;
  } else if (!a.n_buckets.empty()) {
    j["n_buckets"] = a.n_buckets.front();
  }
  put("n_weights", a.n_weights, defaults.n_weights);
  if (a.sparse_format) j["weights_format"] = "sparse";
  put("std_length", a.std_length, defaults.std_length);
  put("softmax_features", a.softmax_features, defaults.softmax_features);
  return j;
}

Json to_json(const FeedForwardConfig& f) {
  Json j = {{"kind", name_of(kFeedForwards, f.kind)}};
  if (f.kind == FeedForwardKind::kDense) j["activation"] = name_of(kActivations, f.activation);
  if (f.gated) j["gated"] = true;
  if (f.block_size) j["block_size"] = f.block_size;
  if (f.d_lowrank) j["d_lowrank"] = f.d_lowrank;
  if (f.multiply_by_controller) j["multiply_by_controller"] = true;
  if (f.n_experts) j["n_experts"] = f.n_experts;
  if (f.n_active) j["n_active"] = f.n_active;
  if (f.sru.n_layers) j["sru"] = {{"n_layers", f.sru.n_layers}, {"width", f.sru.width}};
  if (!f.widths.empty()) j["widths"] = f.widths;
  return j;
}

Json to_json(const StackConfig& s, bool is_encoder) {
  const StackConfig defaults;
  Json j = {{"n_layers", s.n_layers}, {"n_attention", s.n_attention}, {"center_norm", s.center_norm}};
  j["position"] = to_json(s.position);
  for (const AttentionConfig& a : s.attention) j["attention"].push_back(to_json(a));
  j["ff"] = to_json(s.ff);
  if (s.parallel) j["parallel"] = true;
  if (s.depths) {
    j["mixture_of_depths"] = {{"every", s.depths->every},
                              {"capacity", s.depths->capacity},
                              {"predictor_width", s.depths->predictor_width}};
  }
  if (s.two_swaps != defaults.two_swaps) j["two_swaps"] = s.two_swaps;
  if (s.reversible) j["reversible"] = true;
  if (s.forget_every) j["forget_every"] = s.forget_every;
  if (s.forget_dense != defaults.forget_dense) j["forget_dense"] = s.forget_dense;
  if (s.half_before_layer) j["half_before_layer"] = *s.half_before_layer;
  if (s.double_after_layer) j["double_after_layer"] = *s.double_after_layer;
  if (is_encoder && s.vocab_size) j["vocab_size"] = s.vocab_size;
  if (s.d_input) j["d_input"] = s.d_input;
  if (s.cross.q_modules || s.cross.out_modules || !s.cross.has_output) {
    j["cross"] = {{"q_modules", s.cross.q_modules},
                  {"out_modules", s.cross.out_modules},
                  {"has_output", s.cross.has_output}};
  }
  return j;
}

}  // namespace

std::string config_to_json(const ModelConfig& c) {
  Json j = {{"family", name_of(kFamilies, c.family)},
            {"d_model", c.d_model},
            {"d_ff", c.d_ff},
            {"n_heads", c.n_heads},
            {"vocab_size", c.vocab_size},
            {"max_context", c.max_context},
            {"norm", {{"kind", name_of(kNorms, c.norm.kind)}, {"epsilon", c.norm.epsilon}}}};
  if (c.shared_embedding) j["shared_embedding"] = true;
  if (c.encoder) j["encoder"] = to_json(*c.encoder, true);
  j["decoder"] = to_json(c.decoder, false);
  j["logits"] = to_json(c.logits);
  j["tokens"] = {{"start", c.tokens.start}, {"end", c.tokens.end}, {"pad", c.tokens.pad}};
  return j.dump();
}

}  // namespace terrace
