// SPDX-License-Identifier: Apache-2.0
#include "models/config.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>

#include "models/presets.h"
#include "tests/support/expect_error.h"

namespace terrace::test {
namespace {

std::string language_model(const std::string& attention, const std::string& ff, const std::string& more = "",
                           const std::string& position = R"("kind":"none")") {
  return fmt::format(R"({{"family":"transformer_lm","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":50,
      "max_context":100,"decoder":{{"n_layers":1,"position":{{{}}},"attention":[{{{}}}],"ff":{{{}}}{}}}}})",
                     position, attention, ff, more);
}

const std::string kDot = R"("kind":"dot_product")";
const std::string kDense = R"("kind":"dense")";

void refused(const std::string& text, const std::string& message) {
  CAPTURE(text);
  expect_error(ErrorCode::kBadConfig, message, [&] { parse_config(text); });
}

TEST_CASE("configuration: a key that the kind of layer does not read is refused, not dropped") {
  CHECK_NOTHROW(parse_config(language_model(kDot, kDense)));
  refused(language_model(kDot, R"("kind":"sparse","block_size":8,"d_lowrank":8,"activation":"gelu")"),
          "'activation' is read by kind dense only, found kind sparse");
  refused(language_model(kDot, R"("kind":"block","n_experts":4,"multiply_by_controller":true)"),
          "'multiply_by_controller' is read by kind sparse only, found kind block");
  refused(language_model(kDot + R"(,"share_qk":true)", kDense),
          "'share_qk' is read by kind multiplicative_conv or self only, found kind dot_product");
  refused(language_model(kDot + R"(,"n_hashes":2)", kDense), "'n_hashes' is read by kind lsh, pure_lsh or");
  refused(language_model(kDot + R"(,"d_value":4)", kDense), "'d_value' is read by kind");
  refused(language_model(R"("kind":"self","use_dconv":true)", kDense), "'use_dconv' is read by kind");
  refused(language_model(kDot + R"(,"projection":{"kind":"mult","n_modules":4,"rank":3})", kDense),
          "'rank' is read by kind low_rank only, found kind mult");
  refused(language_model(kDot, kDense, "", R"("kind":"sin_cos","max_len":10)"),
          "'position.max_len' is read by kind learned or low_rank only, found kind sin_cos");
}

TEST_CASE("configuration: a key of another family or stack is refused") {
  refused(language_model(kDot, kDense, R"(,"cross":{"q_modules":4})"), "'cross' belongs to the decoder");
  refused(language_model(kDot, kDense, R"(,"reversible":true)"), "'reversible' belongs to the encoder");
  refused(language_model(kDot, kDense, R"(,"two_swaps":false)"), "'two_swaps' belongs to the encoder");
  refused(language_model(kDot, kDense, R"(,"d_input":8)"), "belong to an encoder");
}

TEST_CASE("configuration: what JSON can hold and a model cannot") {
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  refused(language_model(kDot, kDense, R"(,"parallel":)" + deep), "nested deeper than 32 levels");
  refused(language_model(kDot, kDense, R"(,"n_layers":2)"), "key 'n_layers' appears twice");
  refused(language_model(kDot, R"("kind":[["dense"]])"), "'decoder.ff.kind' must be one of");
  refused(language_model(kDot + R"(,"rotary":{"base":1e300})", kDense),
          "must be a number that a float holds");
  const auto scaled = [](const std::string& s) {
    return language_model(kDot + R"(,"rotary":{"scaling":{)" + s + "}}", kDense);
  };
  refused(scaled(R"("factor":2)"), "'rotary.scaling' needs a 'kind'");
  refused(scaled(R"("kind":"yarn")"), "must be one of");
  refused(scaled(R"("kind":"linear","factor":0.5)"), "'rotary.scaling.factor' must be at least 1, found 0.5");
  refused(scaled(R"("kind":"linear","factor":2,"low_freq_factor":1)"), "low_freq_factor");
  refused(scaled(R"("kind":"llama3","low_freq_factor":4)"),
          "must lie between 0 and 'high_freq_factor' (4), found 4");
  refused(scaled(R"("kind":"llama3","original_max_len":0)"),
          "'rotary.scaling.original_max_len' must be from 1");
  for (const char* s :
       {R"("kind":"linear","factor":4)", R"("kind":"llama3","factor":8,"original_max_len":64)"}) {
    const ModelConfig config = parse_config(scaled(s));
    const std::string written = config_to_json(config);
    CHECK(parse_config(written).decoder.attention[0].rotary == config.decoder.attention[0].rotary);
    CHECK(config_to_json(parse_config(written)) == written);
  }
  refused(language_model(kDot, kDense, "", R"("kind":"infinite","drift":-1)"),
          "'position.drift' must lie between 0 and 1, found -1");
  try {
    parse_config(language_model(kDot, R"("kind":")" + std::string(1 << 20, 'x') + "\""));
    FAIL("a kind of a million letters is no kind");
  } catch (const Error& e) {
    CHECK(std::string(e.what()).size() < 1000);
  }
}

TEST_CASE("configuration: what is written reads as the same model") {
  for (const std::string& name : preset_names()) {
    CAPTURE(name);
    const Preset preset = find_preset(name);
    for (const ModelConfig& config : {preset.dense, preset.sparse.value_or(preset.dense)}) {
      const std::string text = config_to_json(config);
      CHECK(config_to_json(parse_config(text)) == text);
    }
  }
}

}  // namespace
}  // namespace terrace::test
