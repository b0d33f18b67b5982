// SPDX-License-Identifier: Apache-2.0
#include "tests/support/session_samples.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include "models/init.h"
#include "models/tensor_plan.h"
#include "models/token_cost.h"

namespace terrace::test {

const std::vector<Sample> kSamples = {
    {"dense, grouped-query, rotary, gated, RMSNorm",
     R"({"family":"transformer_lm","d_model":48,"d_ff":128,"n_heads":4,"vocab_size":61,"max_context":256,
         "norm":{"kind":"rms_norm"},"decoder":{"n_layers":2,"position":{"kind":"none"},
         "attention":[{"kind":"dot_product","n_kv_heads":2,"rotary":{}}],
         "ff":{"kind":"dense","activation":"silu","gated":true,"widths":[64,128]}}})"},
    {"sparse with SRU and sparse output",
     R"({"family":"transformer_lm","d_model":64,"d_ff":128,"n_heads":4,"vocab_size":64,"max_context":256,
         "decoder":{"n_layers":2,"position":{"kind":"learned","max_len":256},
         "attention":[{"kind":"multiplicative_conv","n_modules":8,"v_concat":"original","output":"multconv"}],
         "ff":{"kind":"sparse","block_size":8,"d_lowrank":12,"sru":{"n_layers":2,"width":16},"widths":[32,64,128]}},
         "logits":{"kind":"mult","n_modules":4}})"},
    {"experts, gated, RMSNorm; in every other block, on some tokens",
     R"({"family":"transformer_lm","d_model":32,"d_ff":96,"n_heads":4,"vocab_size":40,"max_context":256,
         "norm":{"kind":"rms_norm"},"decoder":{"n_layers":4,"position":{"kind":"none"},
         "mixture_of_depths":{"every":2,"capacity":0.5,"predictor_width":8},
         "attention":[{"kind":"dot_product","n_kv_heads":2,"rotary":{}}],
         "ff":{"kind":"experts","n_experts":8,"n_active":2,"gated":true}}})"},
    {"experts with biases and SRU, convolutions",
     R"({"family":"transformer_lm","d_model":32,"d_ff":128,"n_heads":4,"vocab_size":40,"max_context":256,
         "decoder":{"n_layers":2,"position":{"kind":"learned","max_len":256},
         "attention":[{"kind":"multiplicative_conv","n_modules":4}],
         "ff":{"kind":"experts","n_experts":8,"n_active":3,"sru":{"n_layers":1,"width":8}}}})"},
    {"parallel block, multi-query, depthwise convolutions",
     R"({"family":"transformer_lm","d_model":40,"d_ff":96,"n_heads":5,"vocab_size":50,"max_context":256,
         "decoder":{"n_layers":2,"position":{"kind":"sin_cos"},"parallel":true,
         "attention":[{"kind":"dot_product","n_kv_heads":1,"use_dconv":true}],"ff":{"kind":"dense","activation":"gelu"}}})"},
    {"chunked self-attention, LSH and running sums",
     R"({"family":"reformer_lm","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":40,"max_context":256,
         "decoder":{"n_layers":3,"position":{"kind":"fixed_base"},
         "attention":[{"kind":"self","share_qk":true,"chunk_len":8,"n_chunks_before":1},
                      {"kind":"lsh","chunk_len":8,"n_chunks_before":1,"n_hashes":2,"n_buckets":8,"mem_len":64,"drop_len":16},
                      {"kind":"favor"}],"ff":{"kind":"switch","n_experts":4}}})",
     true},
    {"Mixture-of-Depths: convolutions, SRU and nested widths over the tokens that run",
     R"({"family":"transformer_lm","d_model":32,"d_ff":128,"n_heads":4,"vocab_size":40,"max_context":256,
         "decoder":{"n_layers":4,"position":{"kind":"learned","max_len":256},
         "mixture_of_depths":{"every":2,"capacity":0.5,"predictor_width":8},
         "attention":[{"kind":"multiplicative_conv","n_modules":4}],
         "ff":{"kind":"sparse","block_size":8,"d_lowrank":8,"sru":{"n_layers":1,"width":8},"widths":[64,128]}}})"},
    {"Mixture-of-Depths by the router's sign: rotary in a parallel block",
     R"({"family":"transformer_lm","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":40,"max_context":256,
         "decoder":{"n_layers":2,"position":{"kind":"none"},"parallel":true,
         "mixture_of_depths":{"every":1,"capacity":0.5,"predictor_width":0},
         "attention":[{"kind":"dot_product","n_kv_heads":2,"rotary":{}}],"ff":{"kind":"dense"}}})"},
    {"Mixture-of-Depths: LSH, chunked attention and running sums",
     R"({"family":"transformer_lm","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":40,"max_context":256,
         "decoder":{"n_layers":3,"position":{"kind":"sin_cos"},
         "mixture_of_depths":{"every":1,"capacity":0.5},
         "attention":[{"kind":"lsh","chunk_len":8,"n_chunks_before":1,"n_hashes":2,"n_buckets":8,"mem_len":64,"drop_len":16},
                      {"kind":"self","share_qk":true,"chunk_len":8,"n_chunks_before":1},
                      {"kind":"favor"}],"ff":{"kind":"block","n_experts":2}}})",
     true},
    {"Terraformer",
     R"({"family":"terraformer","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":40,"max_context":256,
         "shared_embedding":true,
         "encoder":{"n_layers":2,"vocab_size":40,"reversible":true,"position":{"kind":"learned","max_len":256},
         "attention":[{"kind":"dot_product"}],"ff":{"kind":"sparse","block_size":8,"d_lowrank":8}},
         "decoder":{"n_layers":2,"n_attention":2,"position":{"kind":"learned","max_len":256},
         "attention":[{"kind":"multiplicative_conv","n_modules":4}],
         "ff":{"kind":"sparse","block_size":8,"d_lowrank":8,"sru":{"n_layers":1,"width":8}}}})"},
    {"cross attention with a sparse query",
     R"({"family":"transformer","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":40,"max_context":256,
         "encoder":{"n_layers":1,"vocab_size":30,"position":{"kind":"sin_cos"},
         "attention":[{"kind":"dot_product"}],"ff":{"kind":"dense"}},
         "decoder":{"n_layers":2,"position":{"kind":"sin_cos"},"attention":[{"kind":"dot_product"}],
         "cross":{"q_modules":4,"has_output":false},"ff":{"kind":"block","n_experts":2}}})",
     true},
};

const Sample& sample_named(std::string_view name) {
  return *std::find_if(kSamples.begin(), kSamples.end(), [&](const Sample& s) { return s.name == name; });
}

ModelConfig widened(ModelConfig config) {
  config.d_model = 2 * kQ4Columns;
  config.d_ff = 4 * kQ4Columns;
  config.n_heads = 4;
  config.logits.n_modules = std::min(config.logits.n_modules, 2U);
  const auto widen = [](StackConfig& stack) {
    for (AttentionConfig& attention : stack.attention)
      attention.n_modules = std::min(attention.n_modules, 2U);
    stack.cross.q_modules = std::min(stack.cross.q_modules, 2U);
    if (stack.ff.d_lowrank != 0) stack.ff.d_lowrank = kQ4Columns;
    stack.ff.sru.width = kQ4Columns;
    if (!stack.ff.widths.empty()) stack.ff.widths = {kQ4Columns, 2 * kQ4Columns, 4 * kQ4Columns};
  };
  widen(config.decoder);
  if (config.encoder) widen(*config.encoder);
  for (const PlannedTensor& tensor : tensor_plan(config)) {
    CAPTURE(tensor.name);
    CHECK((!tensor.is_weight || stored_dtype(tensor, DType::kQ4) == DType::kQ4));
  }
  return config;
}

std::shared_ptr<const Model> Models::make(const Sample& sample, DType dtype, Isa isa) {
  const std::string path = directory_.file("model-" + std::to_string(n_++) + ".terrace");
  const ModelConfig config = parse_config(sample.config);
  init_model(dtype == DType::kQ4 ? widened(config) : config, path, {.dtype = dtype, .seed = 7});
  return Model::load(path, {.isa = isa});
}

std::string Models::bytes(const std::string& name) {
  std::ifstream stream(file(name), std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::vector<TokenId> some_tokens(const Model& model, std::size_t n, std::size_t seed) {
  std::vector<TokenId> ids;
  for (std::size_t i = 0; i < n; ++i) {
    ids.push_back(static_cast<TokenId>((i * i * 7 + i * seed + seed) % model.config().vocab_size));
  }
  return ids;
}

Session start(const std::shared_ptr<const Model>& model, Runtime& runtime, KvType type) {
  Session session(model, runtime, {.kv_type = type});
  if (model->has_encoder()) {
    std::vector<TokenId> document;
    for (int i = 0; i < 70; ++i) document.push_back(1 + i * 11 % 29);
    session.encode(document);
  }
  return session;
}

void decode_all(Session& session, std::span<const TokenId> ids, Logits& rows) {
  const auto region = session.hold();
  for (const TokenId id : ids) {
    const auto logits = session.decode(id);
    rows.emplace_back(logits.begin(), logits.end());
  }
}

Logits step_by_step(const std::shared_ptr<const Model>& model, std::span<const TokenId> ids,
                    unsigned n_threads, KvType type) {
  Runtime runtime({.n_threads = n_threads});
  Session session = start(model, runtime, type);
  Logits rows;
  decode_all(session, ids, rows);
  return rows;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

float largest_difference(const Logits& a, const Logits& b) {
  float worst = 0;
  for (std::size_t t = 0; t < a.size(); ++t) {
    for (std::size_t i = 0; i < a[t].size(); ++i) worst = std::max(worst, std::abs(a[t][i] - b[t][i]));
  }
  return worst;
}

}  // namespace terrace::test
