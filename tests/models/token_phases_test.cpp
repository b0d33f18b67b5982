// SPDX-License-Identifier: Apache-2.0
#include "models/token_phases.h"

#include <doctest/doctest.h>

#include "engine/phase_times.h"
#include "models/init.h"
#include "models/presets.h"
#include "models/session.h"
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
  config.vocab_size = 4096;
  return config;
}

void check_phases(const ModelConfig& config, DType dtype) {
  CAPTURE(dtype_name(dtype));
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("model.terrace");
  init_model(config, path, {.dtype = dtype, .seed = 1});
  const auto model = Model::load(path);
  const auto tensors = stored_plan(*model);
  for (const unsigned n_threads : {1U, 2U, 4U}) {
    for (const std::size_t position : {0U, 500U}) {
      CAPTURE(n_threads);
      CAPTURE(position);
      const TokenPhases planned = token_phases(config, tensors, {}, {.position = position}, n_threads);
      CHECK(planned.total() == counted(model, n_threads, position));
      CHECK((planned.total() > 0) == (n_threads > 1));
    }
  }
}

TEST_CASE("The phases of a token are those that a team counts") {
  for (const char* name : {"lm-default", "lm1b-24L", "c4-medium"}) {
    for (const bool dense : {true, false}) {
      CAPTURE(name);
      CAPTURE(dense);
      for (const DType dtype : {DType::kBf16, DType::kQ8}) {
        check_phases(two_blocks(preset_config(name, dense)), dtype);
      }
    }
  }
}

TEST_CASE("So are those of gated and grouped-query layers, and of experts") {
  ModelConfig config = two_blocks(preset_config("llama-0.8B", /*dense=*/true));
  config.decoder.attention[0].n_kv_heads = 2;
  check_phases(config, DType::kQ4);
  config.decoder.ff.kind = FeedForwardConfig::Kind::kExperts;
  config.decoder.ff.activation = Activation::kRelu;
  config.decoder.ff.n_experts = 64;
  config.decoder.ff.n_active = 8;
  check_phases(config, DType::kQ8);
}

}  // namespace
}  // namespace terrace
