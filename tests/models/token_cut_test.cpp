// SPDX-License-Identifier: Apache-2.0
#include "models/token_cut.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "engine/phase_times.h"
#include "models/init.h"
#include "models/presets.h"
#include "models/session.h"
#include "tests/support/session_samples.h"
#include "tests/support/temporary_directory.h"

namespace terrace {
namespace {

/// What a team counts for the token at `position`, the context before it read in one pass.
double counted(const std::shared_ptr<const Model>& model, unsigned n_threads, std::size_t position) {
  Runtime runtime({.n_threads = n_threads});
  Session session(model, runtime, {.max_context = position + 1});
  if (position > 0) session.prefill(std::vector<TokenId>(position, 1));
  PhaseTimes times;
  runtime.team().set_phase_times(&times);
  session.decode(1);
  runtime.team().set_phase_times(nullptr);
  return static_cast<double>(times.phases());
}

/// Two blocks of a preset's width.
ModelConfig two_blocks(ModelConfig config) {
  config = decoder_as_language_model(config);
  config.decoder.n_layers = 2;
  config.vocab_size = 1024;
  return config;
}

void check_phases(const ModelConfig& config, DType dtype, std::size_t position) {
  CAPTURE(dtype_name(dtype));
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("model.terrace");
  init_model(config, path, {.dtype = dtype, .seed = 1});
  const auto model = Model::load(path);
  const auto tensors = stored_plan(*model);
  const auto planned = [&](unsigned n_threads) {
    return token_cut(config, tensors, {}, {.position = position}, n_threads).phases.total();
  };
  CHECK(planned(1) == 0);
  for (const unsigned n_threads : {2U, 4U}) {
    CAPTURE(n_threads);
    CHECK(planned(n_threads) > 0);
    CHECK(planned(n_threads) == counted(model, n_threads, position));
  }
}

TEST_CASE("The phases of a token are those that a team counts") {
  for (const char* name : {"lm-default", "c4-medium"}) {
    for (const bool dense : {true, false}) {
      CAPTURE(std::string(name));
      CAPTURE(dense);
      const ModelConfig config = two_blocks(preset_config(name, dense));
      check_phases(config, DType::kBf16, 0);
      check_phases(config, DType::kQ8, 0);
    }
  }
}

TEST_CASE("So are those of a longer context, of gated and grouped-query layers, and of experts") {
  check_phases(two_blocks(preset_config("lm-default", false)), DType::kQ8, 200);
  ModelConfig config = two_blocks(preset_config("llama-0.8B", /*dense=*/true));
  config.decoder.attention[0].n_kv_heads = 2;
  check_phases(config, DType::kQ4, 0);
  config.decoder.ff.kind = FeedForwardConfig::Kind::kExperts;
  config.decoder.ff.activation = Activation::kRelu;
  config.decoder.ff.n_experts = 64;
  config.decoder.ff.n_active = 8;
  check_phases(config, DType::kQ8, 0);
}

TEST_CASE("So are those of every kind of layer; a routed block counts with its capacity") {
  test::for_samples([](test::Models& models, const test::Sample& sample) {
    const auto model = models.make(sample);
    ModelConfig config = model->config();
    const auto tensors = stored_plan(*model);
    const TokenPlace place{.position = 100, .encoder_length = model->has_encoder() ? 70U : 0U};
    const auto planned = [&] { return token_cut(config, tensors, {}, place, 2).phases.total(); };
    if (config.decoder.depths) {  // which tokens run it is up to its router
      const double at_half = planned();
      config.decoder.depths->capacity = 0.25F;
      CHECK(planned() <= at_half);
      return;
    }
    Runtime runtime({.n_threads = 2});
    Session session = test::start(model, runtime);
    session.prefill(test::some_tokens(*model, place.position));
    PhaseTimes times;
    runtime.team().set_phase_times(&times);
    session.decode(1);
    runtime.team().set_phase_times(nullptr);
    CHECK(planned() == static_cast<double>(times.phases()));
  });
}

TEST_CASE("Threads share what is large; the leader reads the rest, and everything if it is alone") {
  const ModelConfig config = two_blocks(preset_config("c4-medium", false));
  const auto tensors = stored_plan(config, DType::kF32);
  const auto shared = [&](const std::string& name, unsigned n_threads) {
    const TokenCut cut = token_cut(config, tensors, {}, {}, n_threads, Isa::kScalar);
    REQUIRE(cut.shared.size() == tensors.size());
    const auto found = std::find_if(tensors.begin(), tensors.end(),
                                    [&](const StoredTensor& t) { return t.planned.name == name; });
    REQUIRE(found != tensors.end());
    return static_cast<bool>(cut.shared[static_cast<std::size_t>(found - tensors.begin())]);
  };
  const std::string block = "decoder.blocks.1.";
  for (const char* name : {"attention.0.shared.gate", "attention.0.shared.proj", "attention.1.v.weight",
                           "ff.controller.down", "ff.controller.up", "ff.controller.bias", "ff.units"}) {
    CAPTURE(std::string(name));
    CHECK(shared(block + name, 2));
    CHECK(!shared(block + name, 1));
  }
  for (const char* name : {"attention.0.norm.scale", "ff.sru.norm.scale", "ff.bias"}) {
    CAPTURE(std::string(name));
    CHECK(!shared(block + name, 2));
  }
  CHECK(shared("decoder.logits.proj", 2));
  CHECK(!shared("decoder.embedding", 2));
}

}  // namespace
}  // namespace terrace
