// SPDX-License-Identifier: Apache-2.0
#include "models/presets.h"

#include <doctest/doctest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "models/token_cost.h"
#include "tests/support/expect_error.h"

namespace terrace {
namespace {

double parameters(const ModelConfig& config) {
  return static_cast<double>(token_cost(tensor_plan(config)).parameters);
}

TEST_CASE("Every preset is valid, survives its JSON, and has a twin of equal parameter count") {
  CHECK(preset_names().size() == 7);
  for (const std::string& name : preset_names()) {
    CAPTURE(name);
    const Preset preset = find_preset(name);
    CHECK(preset.name == name);
    CHECK_FALSE(preset.description.empty());
    const auto check = [](const ModelConfig& config) {
      CHECK(parameters(parse_config(config_to_json(config))) == parameters(config));
    };
    check(preset.dense);
    if (!preset.sparse) continue;
    check(*preset.sparse);
    const double ratio = parameters(*preset.sparse) / parameters(preset.dense);
    CAPTURE(ratio);
    CHECK(std::abs(ratio - 1) < 0.04);
  }
}

TEST_CASE("llama-0.8B has 0.78 billion parameters and no biases") {
  const ModelConfig config = preset_config("llama-0.8B", /*dense=*/true);
  CHECK(parameters(config) == doctest::Approx(0.78e9).epsilon(0.005));
  for (const PlannedTensor& tensor : tensor_plan(config)) CHECK_FALSE(tensor.name.ends_with(".bias"));
  test::expect_error(ErrorCode::kBadArgument, "has no sparse variant",
                     [] { preset_config("llama-0.8B", false); });
}

TEST_CASE("scientific-papers has the sizes of Trax's configuration, which draws its rotations anew") {
  std::vector<PlannedTensor> trained;
  for (PlannedTensor& tensor : tensor_plan(preset_config("scientific-papers", /*dense=*/true))) {
    if (!tensor.name.ends_with(".rotations")) trained.push_back(std::move(tensor));
  }
  const TokenCost cost = token_cost(trained);
  CHECK(static_cast<double>(cost.parameters) == doctest::Approx(276.5e6).epsilon(0.0005));
  CHECK(static_cast<double>(cost.touched) == doctest::Approx(150.34e6).epsilon(0.0005));
}

TEST_CASE("An unknown preset is refused with the names there are") {
  test::expect_error(ErrorCode::kBadArgument, "there is no preset 'gpt'; known: lm-default, lm1b-24L",
                     [] { find_preset("gpt"); });
}

TEST_CASE("The decoder alone is a valid language model of the same cost per token") {
  for (const char* name : {"c4-medium", "scientific-papers", "terraformer-17B"}) {
    for (const bool dense : {false, true}) {
      CAPTURE(name);
      CAPTURE(dense);
      const ModelConfig whole = preset_config(name, dense);
      const ModelConfig alone = decoder_as_language_model(whole);
      CHECK_FALSE(alone.encoder);
      CHECK(token_cost(tensor_plan(alone)).touched == token_cost(tensor_plan(whole)).touched);
    }
  }
  const ModelConfig lm = preset_config("lm1b-24L", false);
  CHECK(config_to_json(decoder_as_language_model(lm)) == config_to_json(lm));
}

}  // namespace
}  // namespace terrace
