// SPDX-License-Identifier: Apache-2.0
#include "models/tensor_plan.h"

#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "models/presets.h"
#include "models/token_cost.h"
#include "tests/support/expect_error.h"

namespace terrace {
namespace {

using Plan = std::vector<PlannedTensor>;

/// Sums over the weight lists of Trax's models, which kReferenceRows was worked out from: the norm of a
/// sublayer counts with its feed-forward or SRU, that of an attention with nothing.
struct ReferenceSums {
  double parameters = 0, decoder = 0, touched = 0, attention = 0, feed_forward = 0, sru = 0, logits = 0,
         macs = 0;
};

ReferenceSums reference_sums(const Plan& plan) {
  ReferenceSums sums;
  for (const PlannedTensor& t : plan) {
    constexpr double kMillionth = 1e-6;
    const auto touched = kMillionth * static_cast<double>(t.touched);
    sums.parameters += kMillionth * static_cast<double>(t.elements());
    if (!t.name.starts_with("encoder.") || t.name == "encoder.embedding") {
      sums.decoder += kMillionth * static_cast<double>(t.elements());
    }
    sums.touched += touched;
    sums.macs += kMillionth * static_cast<double>(token_cost(t).multiply_adds);
    // The rows count this bias as multiply-adds, because Trax stores it as a matrix.
    if (t.name.ends_with(".controller.bias")) sums.macs += touched;
    if (t.kind == LayerKind::kAttention) sums.attention += touched;
    if (t.kind == LayerKind::kLogits) sums.logits += touched;
    if (t.name.find(".ff.sru.") != std::string::npos) {
      sums.sru += touched;
    } else if (t.name.find(".ff.") != std::string::npos) {
      sums.feed_forward += touched;
    }
  }
  return sums;
}

struct ReferenceRow {
  const char* preset;
  bool dense;
  double parameters, decoder, touched, attention, feed_forward, sru, logits, macs;
};

// Rounded as printed: a value agrees when it is within half a unit of the last digit.
constexpr ReferenceRow kReferenceRows[] = {
    {"lm-default", true, 52.8, 52.8, 35.33, 6.30, 12.60, 0, 16.42, 35.3},
    {"lm1b-24L", true, 370.0, 370.0, 335.11, 100.76, 201.50, 0, 32.80, 334.8},
    {"lm1b-24L", false, 365.9, 365.9, 33.80, 4.06, 21.45, 0, 8.23, 112.7},
    {"c4-medium", true, 838.1, 502.2, 435.92, 201.52, 201.50, 0, 32.80, 435.4},
    {"c4-medium", false, 858.0, 403.2, 39.63, 8.12, 21.45, 1.72, 8.23, 173.0},
    {"lm-17B", true, 17031, 17031, 16718, 5097, 11326, 0, 295, 16716},
    {"lm-17B", false, 17330, 17330, 171.2, 33.1, 100.9, 0, 37.0, 1983},
    {"terraformer-17B", true, 17249, 14955, 14641, 6796, 7550, 0, 295, 14639},
    {"terraformer-17B", false, 16603, 14948, 195.2, 56.7, 86.4, 14.6, 37.0, 3117},
};

TEST_CASE("Sizes and traffic of the presets are those of Trax's weight lists") {
  for (const ReferenceRow& row : kReferenceRows) {
    CAPTURE(std::string(row.preset));
    CAPTURE(row.dense);
    const ReferenceSums sums = reference_sums(tensor_plan(preset_config(row.preset, row.dense)));
    const auto agrees = [](double value, double printed) {
      const bool whole = printed == std::round(printed);
      const double unit = whole && printed >= 100 ? 1 : 10 * printed == std::round(10 * printed) ? 0.1 : 0.01;
      CAPTURE(value);
      CAPTURE(printed);
      CHECK(std::abs(value - printed) <= 0.5 * unit + 1e-6);
    };
    agrees(sums.parameters, row.parameters);
    agrees(sums.decoder, row.decoder);
    agrees(sums.touched, row.touched);
    agrees(sums.attention, row.attention);
    agrees(sums.feed_forward, row.feed_forward);
    agrees(sums.sru, row.sru);
    agrees(sums.logits, row.logits);
    agrees(sums.macs, row.macs);
  }
}

TEST_CASE("A sparse lm-default that keeps d_ff = 2048 has the sizes of Trax's") {
  ModelConfig config = preset_config("lm-default", false);
  config.d_ff = 2048;
  const ReferenceSums sums = reference_sums(tensor_plan(config));
  CHECK(sums.parameters == doctest::Approx(35.9).epsilon(0.001));
  CHECK(sums.touched == doctest::Approx(6.28).epsilon(0.001));
  CHECK(sums.attention == doctest::Approx(0.74).epsilon(0.005));
  CHECK(sums.feed_forward == doctest::Approx(1.40).epsilon(0.005));
  CHECK(sums.logits == doctest::Approx(4.13).epsilon(0.002));
  CHECK(sums.macs == doctest::Approx(23.5).epsilon(0.002));
}

TEST_CASE("The 17B models have exactly the parameters that their shapes give by hand") {
  CHECK(token_cost(tensor_plan(preset_config("lm-17B", true))).parameters == 17'031'307'520U);
  CHECK(token_cost(tensor_plan(preset_config("lm-17B", false))).parameters == 17'330'328'224U);
}

std::vector<std::string> names_of(const Plan& plan) {
  std::vector<std::string> names;
  for (const PlannedTensor& tensor : plan) names.push_back(tensor.name);
  return names;
}

TEST_CASE("The plan of a small sparse model names every tensor in file order") {
  ModelConfig config = preset_config("lm-default", false);
  config.decoder.n_layers = 1;
  const Plan plan = tensor_plan(config);
  CHECK(names_of(plan) == std::vector<std::string>{"decoder.embedding",
                                                   "decoder.position.table",
                                                   "decoder.blocks.0.attention.0.norm.scale",
                                                   "decoder.blocks.0.attention.0.norm.bias",
                                                   "decoder.blocks.0.attention.0.shared.gate",
                                                   "decoder.blocks.0.attention.0.shared.proj",
                                                   "decoder.blocks.0.attention.0.shared.bias",
                                                   "decoder.blocks.0.attention.0.q.weight",
                                                   "decoder.blocks.0.attention.0.q.bias",
                                                   "decoder.blocks.0.attention.0.k.weight",
                                                   "decoder.blocks.0.attention.0.k.bias",
                                                   "decoder.blocks.0.attention.0.v.weight",
                                                   "decoder.blocks.0.attention.0.v.bias",
                                                   "decoder.blocks.0.ff.norm.scale",
                                                   "decoder.blocks.0.ff.norm.bias",
                                                   "decoder.blocks.0.ff.controller.down",
                                                   "decoder.blocks.0.ff.controller.up",
                                                   "decoder.blocks.0.ff.controller.bias",
                                                   "decoder.blocks.0.ff.units",
                                                   "decoder.blocks.0.ff.bias",
                                                   "decoder.norm.scale",
                                                   "decoder.norm.bias",
                                                   "decoder.logits.gate",
                                                   "decoder.logits.proj",
                                                   "decoder.logits.bias"});
}

TEST_CASE("Names are unique, shapes positive, and what a token touches is whole rows of what there is") {
  for (const std::string& name : preset_names()) {
    const Preset preset = find_preset(name);
    for (const ModelConfig& config : {preset.dense, preset.sparse.value_or(preset.dense)}) {
      CAPTURE(name);
      std::set<std::string> seen;
      for (const PlannedTensor& tensor : tensor_plan(config)) {
        CAPTURE(tensor.name);
        CHECK(seen.insert(tensor.name).second);
        CHECK(tensor.elements() > 0);
        CHECK(tensor.touched <= tensor.elements());
        CHECK(tensor.touched % tensor.columns() == 0);
        for (const DType dtype : {DType::kF32, DType::kBf16, DType::kQ8, DType::kQ4}) {
          const DType stored = stored_dtype(tensor, dtype);
          CHECK(touched_bytes(tensor, stored) <= stored_bytes(tensor, stored));
          CHECK((stored == DType::kF32 || tensor.is_weight));
        }
      }
    }
  }
}

TEST_CASE("Encoder layers and the cached keys and values of cross attention cost a token nothing") {
  ModelConfig config = preset_config("c4-medium", true);
  config.family = Family::kTransformer;
  config.decoder.n_attention = 1;
  config.encoder->reversible = false;
  config.shared_embedding = true;
  double touched = 0;
  for (const PlannedTensor& tensor : tensor_plan(config)) {
    CAPTURE(tensor.name);
    if (tensor.name.starts_with("encoder.") && tensor.name != "encoder.embedding") CHECK(tensor.touched == 0);
    if (tensor.name.find("cross.k.") != std::string::npos) CHECK(tensor.touched == 0);
    if (tensor.name.find("cross.out.") != std::string::npos) CHECK(tensor.touched == tensor.elements());
    touched += 1e-6 * static_cast<double>(tensor.touched);
  }
  // From the weight list of Trax's ConfigurableTransformer with c4_pretrain_16gb_adafactor.gin.
  CHECK(touched == doctest::Approx(385.54).epsilon(0.0001));
}

TEST_CASE("Every kind of layer has a name of its own") {
  std::set<std::string> names;
  for (std::size_t kind = 0; kind < kLayerKinds; ++kind)
    names.insert(layer_kind_name(static_cast<LayerKind>(kind)));
  CHECK(names.size() == kLayerKinds);
}

TEST_CASE("A width takes a prefix of the units of a decoder's feed-forward layers and of nothing else") {
  for (const bool dense : {true, false}) {
    std::set<std::string> sliced;
    for (const PlannedTensor& tensor : tensor_plan(preset_config("c4-medium", dense))) {
      const std::string decoder = "decoder.blocks.1.";
      CHECK(tensor.block.has_value() == tensor.name.starts_with("decoder.blocks."));
      if (tensor.by_width && tensor.block == 1U) sliced.insert(tensor.name.substr(decoder.size()));
    }
    const std::set<std::string> units = {"ff.w1.weight", "ff.w1.bias", "ff.w2.weight"};
    const std::set<std::string> chosen = {"ff.controller.up", "ff.controller.bias", "ff.units"};
    CHECK(sliced == (dense ? units : chosen));
  }
}

TEST_CASE("Bytes: f32 for what is no weight, q8 for rows that q4 cannot hold, scales counted") {
  const PlannedTensor weight{"w", {3, 128}, LayerKind::kAttention, true, 128, 1, {}};
  CHECK(stored_dtype(weight, DType::kQ4) == DType::kQ4);
  CHECK(stored_bytes(weight, DType::kF32) == 3 * 512);
  CHECK(stored_bytes(weight, DType::kBf16) == 3 * 256);
  CHECK(stored_bytes(weight, DType::kQ8) == 3 * 132);
  CHECK(stored_bytes(weight, DType::kQ4) == 3 * (64 + 8));
  CHECK(touched_bytes(weight, DType::kQ4) == 64 + 8);
  const PlannedTensor odd{"w", {3, 96}, LayerKind::kAttention, true, 96, 1, {}};
  CHECK(stored_dtype(odd, DType::kQ4) == DType::kQ8);
  const PlannedTensor gate{"g", {3, 128}, LayerKind::kAttention, false, 384, 1, {}};
  CHECK(stored_dtype(gate, DType::kQ4) == DType::kF32);
  CHECK(touched_bytes(gate, DType::kF32) == 4 * 384);
}

TEST_CASE("A configuration that describes no model has no plan") {
  ModelConfig config = preset_config("lm-default", true);
  config.n_heads = 7;
  test::expect_error(ErrorCode::kBadConfig, "n_heads", [&] { tensor_plan(config); });
}

}  // namespace
}  // namespace terrace
