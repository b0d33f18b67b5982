// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "models/evaluate.h"
#include "models/tensor_plan.h"
#include "tests/support/expect_error.h"
#include "tests/support/session_samples.h"

namespace terrace::test {
namespace {

/// All blocks routed and no positions, so that what a token meets in a block does not depend on its
/// neighbours where they pass by.
constexpr Sample kAllRouted = {
    "all blocks routed",
    R"({"family":"transformer_lm","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":60,"max_context":256,
        "decoder":{"n_layers":2,"position":{"kind":"none"},
        "mixture_of_depths":{"every":1,"capacity":0.5,"predictor_width":8},
        "attention":[{"kind":"multiplicative_conv","n_modules":4}],
        "ff":{"kind":"sparse","block_size":8,"d_lowrank":8,"sru":{"n_layers":1,"width":8}}}})"};

/// Blocks that `id` runs as the only token.
double blocks_run(const std::shared_ptr<const Model>& model, TokenId id) {
  Runtime runtime({.n_threads = 1});
  Session session(model, runtime);
  session.decode(id);
  double n = 0;
  for (const double share : session.routed_shares()) n += share;
  return n;
}

TEST_CASE(
    "Mixture-of-Depths: a token that passes by leaves no trace in keys, time taps and recurrent cells") {
  Models models;
  const auto model = models.make(kAllRouted);
  std::vector<TokenId> running;
  std::vector<TokenId> passing;
  for (TokenId id = 0; id < static_cast<TokenId>(model->config().vocab_size); ++id) {
    (blocks_run(model, id) > 0 ? running : passing).push_back(id);
  }
  REQUIRE(running.size() > 5);
  REQUIRE(passing.size() > 5);
  // Without positions a token that passes both blocks alone passes them anywhere: its x is its embedding.
  std::vector<TokenId> with_holes;
  for (std::size_t i = 0; i < 80; ++i) {
    with_holes.push_back(running[i * 7 % running.size()]);
    for (std::size_t j = 0; j < i % 4; ++j) with_holes.push_back(passing[(i + j) % passing.size()]);
  }
  std::vector<TokenId> without;
  std::copy_if(with_holes.begin(), with_holes.end(), std::back_inserter(without),
               [&](TokenId id) { return std::find(passing.begin(), passing.end(), id) == passing.end(); });
  const Logits a = step_by_step(model, with_holes);
  const Logits b = step_by_step(model, without);
  std::size_t t = 0;
  for (std::size_t i = 0; i < with_holes.size(); ++i) {
    if (std::find(passing.begin(), passing.end(), with_holes[i]) != passing.end()) continue;
    CAPTURE(i);
    CHECK(same_bits(a[i], b[t++]));
  }
}

TEST_CASE("Mixture-of-Depths: shares of the tokens that ran follow a rewind, and a fork has its own") {
  Models models;
  const auto model = models.make(kAllRouted);
  Runtime runtime({.n_threads = 2});
  Session session(model, runtime);
  CHECK(session.routed_shares().empty());
  const std::vector<TokenId> ids = some_tokens(*model, 150);
  session.prefill(std::span(ids).first(40));
  const std::vector<double> at_40 = session.routed_shares();
  REQUIRE(at_40.size() == 2);
  CHECK(at_40[0] > 0);
  CHECK(at_40[0] < 1);
  const Session fork = session.fork();
  session.prefill(std::span(ids).subspan(40));
  CHECK(session.routed_shares() != at_40);
  CHECK(fork.routed_shares() == at_40);
  session.rewind(40);
  CHECK(session.routed_shares() == at_40);
}

TEST_CASE("Mixture-of-Depths: memory of keys and values is for the tokens that ran") {
  Models models;
  const auto model = models.make(kAllRouted);
  Runtime runtime({.n_threads = 1});
  Session session(model, runtime);
  std::vector<TokenId> passing;
  for (TokenId id = 0; passing.empty(); ++id) {
    if (blocks_run(model, id) == 0) passing.push_back(id);
  }
  passing.resize(100, passing[0]);
  session.prefill(passing);
  CHECK(session.state_bytes().kv_cache == 0);
}

TEST_CASE("Mixture-of-Depths: a routed block over a whole sequence is what its tokens give one by one") {
  // One chunk holds all tokens that run, so the two forms agree although the layer has two definitions.
  constexpr Sample kChunked = {
      "routed blocks of chunked attention",
      R"({"family":"transformer_lm","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":60,"max_context":256,
          "decoder":{"n_layers":3,"position":{"kind":"sin_cos"},"mixture_of_depths":{"every":1,"capacity":0.5},
          "attention":[{"kind":"self","chunk_len":48,"mem_len":200},{"kind":"dot_product","rotary":{}}],
          "ff":{"kind":"sparse","block_size":8,"d_lowrank":8,"sru":{"n_layers":1,"width":8}}}})"};
  Models models;
  const auto model = models.make(kChunked);
  REQUIRE_FALSE(steps_equal_evaluation(*model));
  const std::vector<TokenId> ids = some_tokens(*model, 45);
  Runtime runtime({.n_threads = 2});
  Logits whole;
  evaluate(*model, runtime, ids, nullptr, [&](std::size_t, std::span<const float> logits) {
    whole.emplace_back(logits.begin(), logits.end());
  });
  const Logits steps = step_by_step(model, ids);
  REQUIRE(whole.size() == steps.size());
  CHECK(largest_difference(whole, steps) < 2e-5F);
}

TEST_CASE("Mixture-of-Depths: impossible settings are refused by name") {
  const auto refuses = [](const char* family, const char* depths, const char* message) {
    const std::string config = fmt::format(
        R"({{"family":"{}","d_model":8,"d_ff":8,"n_heads":2,"vocab_size":8,"max_context":8,
             "decoder":{{"n_layers":2,"position":{{"kind":"none"}},"mixture_of_depths":{},
             "attention":[{{"kind":"dot_product"}}],"ff":{{"kind":"dense"}}}}}})",
        family, depths);
    expect_error(ErrorCode::kBadConfig, message, [&] { parse_config(config); });
  };
  refuses("transformer_lm", R"({"every":0})", "mixture_of_depths.every");
  refuses("transformer_lm", R"({"every":3})", "mixture_of_depths.every");
  refuses("transformer_lm", R"({"capacity":0})", "mixture_of_depths.capacity");
  refuses("transformer_lm", R"({"capacity":1.5})", "mixture_of_depths.capacity");
  refuses("transformer_lm", R"({"width":8})", "width");
  refuses("reformer_lm", R"({"every":2})", "belongs to transformer_lm");
}

TEST_CASE("Mixture-of-Depths: the configuration survives its JSON, and a routed block is read in its share") {
  const ModelConfig config = parse_config(kAllRouted.config);
  const ModelConfig again = parse_config(config_to_json(config));
  REQUIRE(again.decoder.depths);
  CHECK(again.decoder.depths->every == 1);
  CHECK(again.decoder.depths->capacity == 0.5F);
  CHECK(again.decoder.depths->predictor_width == 8);
  ModelConfig plain = config;
  plain.decoder.depths.reset();
  const auto touched = [](const ModelConfig& c, const char* name) {
    const auto plan = tensor_plan(c);
    return std::find_if(plan.begin(), plan.end(), [&](const PlannedTensor& t) { return t.name == name; })
        ->touched;
  };
  const char* shared = "decoder.blocks.0.attention.0.shared.proj";
  CHECK(2 * touched(config, shared) == touched(plain, shared));
  CHECK(touched(config, "decoder.embedding") == touched(plain, "decoder.embedding"));
  CHECK(touched(config, "decoder.blocks.0.depth.router") == config.d_model);
}

}  // namespace
}  // namespace terrace::test
