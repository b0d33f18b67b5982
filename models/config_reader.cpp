// SPDX-License-Identifier: Apache-2.0
// JSON to ModelConfig: docs/model-file.md, "Configuration".
#include <fmt/format.h>

#include "engine/error.h"
#include "engine/strict_json.h"
#include "models/config.h"
#include "models/config_names.h"
#include "models/config_object.h"

namespace terrace {
namespace {

PositionConfig parse_position(ObjectReader r) {
  PositionConfig p;
  r.read("kind", kPositions, p.kind);
  r.read("max_len", p.max_len);
  r.read("rank", p.rank);
  r.read("drift", p.drift);
  r.read("bin_length", p.bin_length);
  r.read("shape", p.shape);
  r.read("dims", p.dims);
  r.finish();
  return p;
}

ProjectionConfig parse_projection(ObjectReader r) {
  ProjectionConfig p;
  r.read("kind", kProjections, p.kind);
  r.read("n_modules", p.n_modules);
  r.read("kernel_size", p.kernel_size);
  r.read("rank", p.rank);
  r.finish();
  return p;
}

RotaryConfig parse_rotary(ObjectReader r) {
  RotaryConfig rotary;
  r.read("base", rotary.base);
  r.read("interleaved", rotary.interleaved);
  if (r.has("scaling")) {
    ObjectReader scaling = r.object("scaling");
    RotaryScaling& s = rotary.scaling;
    scaling.read("kind", kRotaryScalings, s.kind);
    scaling.read("factor", s.factor);
    if (s.kind == RotaryScaling::Kind::kLlama3) {
      scaling.read("low_freq_factor", s.low_freq_factor);
      scaling.read("high_freq_factor", s.high_freq_factor);
      scaling.read("original_max_len", s.original_max_len);
    }
    scaling.finish();
  }
  r.finish();
  return rotary;
}

AttentionConfig parse_attention(ObjectReader r) {
  AttentionConfig a;
  r.read("kind", kAttentions, a.kind);
  if (r.has("projection")) a.projection = parse_projection(r.object("projection"));
  r.read("n_kv_heads", a.n_kv_heads);
  r.read("d_head", a.d_head);
  r.read("d_value", a.d_value);
  r.read("use_dconv", a.use_dconv);
  r.read("causal", a.causal);
  if (r.has("rotary")) a.rotary = parse_rotary(r.object("rotary"));
  r.read("n_modules", a.n_modules);
  r.read("kernel_size", a.kernel_size);
  r.read("share_qk", a.share_qk);
  r.read("v_concat", kVConcats, a.v_concat);
  r.read("output", kOutputs, a.output);
  r.read("chunk_len", a.chunk_len);
  r.read("n_chunks_before", a.n_chunks_before);
  r.read("n_chunks_after", a.n_chunks_after);
  r.read("mem_len", a.mem_len);
  r.read("drop_len", a.drop_len);
  r.read("n_hashes", a.n_hashes);
  if (r.has("n_buckets")) {
    if (r.at("n_buckets").is_array()) {
      r.read("n_buckets", a.n_buckets);
      a.n_buckets_is_list = true;
    } else {
      std::uint32_t n = 0;
      r.read("n_buckets", n);
      a.n_buckets = {n};
    }
  }
  r.read("n_weights", a.n_weights);
  if (r.has("weights_format")) {
    const nlohmann::json& format = r.at("weights_format");
    if (format != "model" && format != "sparse")
      bad_config("'" + r.path_of("weights_format") + "' must be model or sparse");
    a.sparse_format = format == "sparse";
  }
  r.read("std_length", a.std_length);
  r.read("softmax_features", a.softmax_features);
  r.finish();
  return a;
}

FeedForwardConfig parse_feed_forward(ObjectReader r) {
  FeedForwardConfig f;
  r.read("kind", kFeedForwards, f.kind);
  r.read("activation", kActivations, f.activation);
  r.read("gated", f.gated);
  r.read("block_size", f.block_size);
  r.read("d_lowrank", f.d_lowrank);
  r.read("multiply_by_controller", f.multiply_by_controller);
  r.read("n_experts", f.n_experts);
  r.read("n_active", f.n_active);
  if (r.has("sru")) {
    ObjectReader sru = r.object("sru");
    f.sru.n_layers = 1;
    sru.read("n_layers", f.sru.n_layers);
    sru.read("width", f.sru.width);
    sru.finish();
  }
  r.read("widths", f.widths);
  r.finish();
  return f;
}

StackConfig parse_stack(ObjectReader r) {
  StackConfig s;
  r.read("n_layers", s.n_layers);
  r.read("n_attention", s.n_attention);
  r.read("center_norm", s.center_norm);
  s.position = parse_position(r.object("position"));
  const nlohmann::json& attention = r.at("attention");
  if (!attention.is_array() || attention.empty() || attention.size() > ObjectReader::kMaxList) {
    bad_config("'" + r.path_of("attention") + "' must be a non-empty list of attention layers");
  }
  for (std::size_t i = 0; i < attention.size(); ++i) {
    s.attention.push_back(parse_attention({attention[i], fmt::format("{}[{}]", r.path_of("attention"), i)}));
  }
  s.ff = parse_feed_forward(r.object("ff"));
  r.read("parallel", s.parallel);
  if (r.has("mixture_of_depths")) {
    ObjectReader depths = r.object("mixture_of_depths");
    s.depths.emplace();
    depths.read("every", s.depths->every);
    depths.read("capacity", s.depths->capacity);
    depths.read("predictor_width", s.depths->predictor_width);
    depths.finish();
  }
  r.read("two_swaps", s.two_swaps);
  r.read("reversible", s.reversible);
  r.read("forget_every", s.forget_every);
  r.read("forget_dense", s.forget_dense);
  r.read("half_before_layer", s.half_before_layer);
  r.read("double_after_layer", s.double_after_layer);
  r.read("vocab_size", s.vocab_size);
  r.read("d_input", s.d_input);
  if (r.has("cross")) {
    ObjectReader cross = r.object("cross");
    cross.read("q_modules", s.cross.q_modules);
    cross.read("out_modules", s.cross.out_modules);
    cross.read("has_output", s.cross.has_output);
    cross.finish();
  }
  r.finish();
  return s;
}

}  // namespace

ModelConfig parse_config(std::string_view text) {
  const nlohmann::json json = parse_strict_json(text, "model configuration", ErrorCode::kBadConfig);
  ObjectReader r(json, "");
  ModelConfig c;
  r.at("family");
  r.read("family", kFamilies, c.family);
  r.read("d_model", c.d_model);
  r.read("d_ff", c.d_ff);
  r.read("n_heads", c.n_heads);
  r.read("vocab_size", c.vocab_size);
  r.read("max_context", c.max_context);
  if (r.has("norm")) {
    ObjectReader norm = r.object("norm");
    norm.read("kind", kNorms, c.norm.kind);
    norm.read("epsilon", c.norm.epsilon);
    norm.finish();
  }
  r.read("shared_embedding", c.shared_embedding);
  if (r.has("encoder")) c.encoder = parse_stack(r.object("encoder"));
  c.decoder = parse_stack(r.object("decoder"));
  if (r.has("logits")) c.logits = parse_projection(r.object("logits"));
  if (r.has("tokens")) {
    ObjectReader tokens = r.object("tokens");
    tokens.read("start", c.tokens.start);
    tokens.read("end", c.tokens.end);
    tokens.read("pad", c.tokens.pad);
    tokens.finish();
  }
  r.finish();
  validate(c);
  return c;
}

}  // namespace terrace
