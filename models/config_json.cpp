// SPDX-License-Identifier: Apache-2.0
// The JSON side of ModelConfig: docs/model-file.md, "Configuration".
#include <fmt/format.h>

#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>

#include "engine/error.h"
#include "models/config.h"

namespace terrace {
namespace {

using Json = nlohmann::ordered_json;

/// Enum values and their names in the file; one table serves both directions.
template <class Enum>
struct EnumName {
  Enum value;
  const char* name;
};

constexpr std::array kFamilies = {EnumName<Family>{Family::kTransformerLm, "transformer_lm"},
                                  EnumName<Family>{Family::kTerraformer, "terraformer"},
                                  EnumName<Family>{Family::kReformerLm, "reformer_lm"},
                                  EnumName<Family>{Family::kTransformer, "transformer"}};
using NormKind = NormConfig::Kind;
constexpr std::array kNorms = {EnumName<NormKind>{NormKind::kLayerNorm, "layer_norm"},
                               EnumName<NormKind>{NormKind::kRmsNorm, "rms_norm"}};
using PositionKind = PositionConfig::Kind;
constexpr std::array kPositions = {EnumName<PositionKind>{PositionKind::kNone, "none"},
                                   EnumName<PositionKind>{PositionKind::kLearned, "learned"},
                                   EnumName<PositionKind>{PositionKind::kLowRank, "low_rank"},
                                   EnumName<PositionKind>{PositionKind::kSinCos, "sin_cos"},
                                   EnumName<PositionKind>{PositionKind::kFixedBase, "fixed_base"},
                                   EnumName<PositionKind>{PositionKind::kInfinite, "infinite"},
                                   EnumName<PositionKind>{PositionKind::kAxial, "axial"},
                                   EnumName<PositionKind>{PositionKind::kTimeBin, "time_bin"}};
using ProjectionKind = ProjectionConfig::Kind;
constexpr std::array kProjections = {EnumName<ProjectionKind>{ProjectionKind::kDense, "dense"},
                                     EnumName<ProjectionKind>{ProjectionKind::kMult, "mult"},
                                     EnumName<ProjectionKind>{ProjectionKind::kMultModular, "mult_modular"},
                                     EnumName<ProjectionKind>{ProjectionKind::kConv, "conv"},
                                     EnumName<ProjectionKind>{ProjectionKind::kLocal, "local"},
                                     EnumName<ProjectionKind>{ProjectionKind::kLowRank, "low_rank"}};
using AttentionKind = AttentionConfig::Kind;
constexpr std::array kAttentions = {
    EnumName<AttentionKind>{AttentionKind::kDotProduct, "dot_product"},
    EnumName<AttentionKind>{AttentionKind::kMultiplicativeConv, "multiplicative_conv"},
    EnumName<AttentionKind>{AttentionKind::kSelf, "self"},
    EnumName<AttentionKind>{AttentionKind::kLsh, "lsh"},
    EnumName<AttentionKind>{AttentionKind::kPureLsh, "pure_lsh"},
    EnumName<AttentionKind>{AttentionKind::kMixedLsh, "mixed_lsh"},
    EnumName<AttentionKind>{AttentionKind::kFavor, "favor"}};
using VConcat = AttentionConfig::VConcat;
constexpr std::array kVConcats = {EnumName<VConcat>{VConcat::kNone, "none"},
                                  EnumName<VConcat>{VConcat::kOriginal, "original"},
                                  EnumName<VConcat>{VConcat::kFixed, "fixed"}};
using AttentionOutput = AttentionConfig::Output;
constexpr std::array kOutputs = {EnumName<AttentionOutput>{AttentionOutput::kNone, "none"},
                                 EnumName<AttentionOutput>{AttentionOutput::kMult, "mult"},
                                 EnumName<AttentionOutput>{AttentionOutput::kConv, "conv"},
                                 EnumName<AttentionOutput>{AttentionOutput::kMultConv, "multconv"}};
constexpr std::array kActivations = {EnumName<Activation>{Activation::kRelu, "relu"},
                                     EnumName<Activation>{Activation::kGelu, "gelu"},
                                     EnumName<Activation>{Activation::kFastGelu, "fast_gelu"},
                                     EnumName<Activation>{Activation::kSilu, "silu"}};
using FeedForwardKind = FeedForwardConfig::Kind;
constexpr std::array kFeedForwards = {EnumName<FeedForwardKind>{FeedForwardKind::kDense, "dense"},
                                      EnumName<FeedForwardKind>{FeedForwardKind::kSparse, "sparse"},
                                      EnumName<FeedForwardKind>{FeedForwardKind::kBlock, "block"},
                                      EnumName<FeedForwardKind>{FeedForwardKind::kSwitch, "switch"},
                                      EnumName<FeedForwardKind>{FeedForwardKind::kExperts, "experts"}};

template <class Enum, std::size_t N>
const char* name_of(const std::array<EnumName<Enum>, N>& names, Enum value) {
  for (const auto& entry : names) {
    if (entry.value == value) return entry.name;
  }
  throw Error(ErrorCode::kInternal, "configuration holds an enum value without a name");
}

[[noreturn]] void bad_config(const std::string& message) {
  throw Error(ErrorCode::kBadConfig, "model configuration: " + message);
}

/// One JSON object that must be read completely: keys nobody asked for are an error in finish().
class ObjectReader {
 public:
  ObjectReader(const Json& json, std::string path) : json_(json), path_(std::move(path)) {
    if (!json.is_object())
      bad_config(fmt::format("{} must be an object", path_.empty() ? "the whole" : path_));
  }

  bool has(const char* key) {
    seen_.insert(key);
    return json_.contains(key) && !json_.at(key).is_null();
  }
  std::string path_of(const char* key) const { return path_.empty() ? key : path_ + "." + key; }
  const Json& at(const char* key) {
    if (!has(key)) bad_config("missing key '" + path_of(key) + "'");
    return json_.at(key);
  }
  ObjectReader object(const char* key) { return {at(key), path_of(key)}; }

  void read(const char* key, std::uint32_t& value) {
    if (has(key)) value = to_u32(json_.at(key), path_of(key));
  }
  void read(const char* key, std::int32_t& value) {
    if (!has(key)) return;
    const Json& j = json_.at(key);
    if (!j.is_number_integer() || j.get<std::int64_t>() < -1 || j.get<std::int64_t>() > kMaxSize) {
      bad_config(fmt::format("'{}' must be a token id or -1, found {}", path_of(key), excerpt(j)));
    }
    value = j.get<std::int32_t>();
  }
  void read(const char* key, std::optional<std::uint32_t>& value) {
    if (has(key)) value = to_u32(json_.at(key), path_of(key));
  }
  void read(const char* key, bool& value) {
    if (!has(key)) return;
    if (!json_.at(key).is_boolean()) {
      bad_config(fmt::format("'{}' must be true or false, found {}", path_of(key), excerpt(json_.at(key))));
    }
    value = json_.at(key).get<bool>();
  }
  void read(const char* key, float& value) {
    if (!has(key)) return;
    if (!json_.at(key).is_number()) {
      bad_config(fmt::format("'{}' must be a number, found {}", path_of(key), excerpt(json_.at(key))));
    }
    value = json_.at(key).get<float>();
  }
  void read(const char* key, std::vector<std::uint32_t>& values) {
    if (!has(key)) return;
    const Json& j = json_.at(key);
    if (!j.is_array() || j.size() > kMaxList) {
      bad_config(fmt::format("'{}' must be a list of at most {} sizes", path_of(key), kMaxList));
    }
    values.clear();
    for (const Json& item : j) values.push_back(to_u32(item, path_of(key)));
  }
  template <class Enum, std::size_t N>
  void read(const char* key, const std::array<EnumName<Enum>, N>& names, Enum& value) {
    if (!has(key)) return;
    const Json& j = json_.at(key);
    std::string expected;
    for (const auto& entry : names) {
      if (j.is_string() && j.get_ref<const std::string&>() == entry.name) {
        value = entry.value;
        return;
      }
      expected += std::string(expected.empty() ? "" : ", ") + entry.name;
    }
    bad_config(fmt::format("'{}' must be one of {}; found {}", path_of(key), expected, excerpt(j)));
  }

  void finish() const {
    for (const auto& item : json_.items()) {
      if (!seen_.contains(item.key())) {
        bad_config(fmt::format("unknown key '{}'{}: a misspelling, or the file needs a newer engine",
                               item.key().substr(0, 80), path_.empty() ? "" : " in '" + path_ + "'"));
      }
    }
  }

  static constexpr std::int64_t kMaxSize = std::numeric_limits<std::int32_t>::max();
  static constexpr std::size_t kMaxList = 4096;

 private:
  static std::string excerpt(const Json& j) {
    return j.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 60);
  }
  static std::uint32_t to_u32(const Json& j, const std::string& path) {
    if (!j.is_number_integer() || j.get<std::int64_t>() < 0 || j.get<std::int64_t>() > kMaxSize) {
      bad_config(fmt::format("'{}' must be an integer from 0 to {}, found {}", path, kMaxSize, excerpt(j)));
    }
    return static_cast<std::uint32_t>(j.get<std::int64_t>());
  }

  const Json& json_;
  std::string path_;
  std::set<std::string> seen_;
};

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

AttentionConfig parse_attention(ObjectReader r) {
  AttentionConfig a;
  r.read("kind", kAttentions, a.kind);
  if (r.has("projection")) a.projection = parse_projection(r.object("projection"));
  r.read("n_kv_heads", a.n_kv_heads);
  r.read("d_head", a.d_head);
  r.read("d_value", a.d_value);
  r.read("use_dconv", a.use_dconv);
  r.read("causal", a.causal);
  if (r.has("rotary")) {
    ObjectReader rotary = r.object("rotary");
    a.rotary.emplace();
    rotary.read("base", a.rotary->base);
    rotary.read("interleaved", a.rotary->interleaved);
    rotary.finish();
  }
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
    const Json& format = r.at("weights_format");
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
  const Json& attention = r.at("attention");
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
  if (a.rotary) j["rotary"] = {{"base", a.rotary->base}, {"interleaved", a.rotary->interleaved}};
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

ModelConfig parse_config(std::string_view text) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception& e) {
    bad_config(std::string("not valid JSON: ") + e.what());
  }
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
