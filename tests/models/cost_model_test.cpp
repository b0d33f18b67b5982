// SPDX-License-Identifier: Apache-2.0
#include "models/cost_model.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "models/model_cost.h"
#include "models/presets.h"
#include "models/token_phases.h"
#include "tests/support/expect_error.h"

namespace terrace {
namespace {

/// Round figures of no machine: 10 GB/s of weights, 5 GB/s of state, 1 us per phase.
const MachineRates kRates{
    .compute = {.multiply_adds_per_s = 20e9, .module_multiply_adds_per_s = 40e9, .seconds_per_phase = 1e-6},
    .weight_bytes_per_s = 10e9,
    .state_bytes_per_s = 5e9};

Prediction predicted(const ModelConfig& config, DType dtype, const TokenPlace& place,
                     std::span<const std::uint32_t> widths = {}, std::size_t n_threads = 1) {
  const auto tensors = stored_plan(config, dtype);
  return predict(token_work(config, tensors, widths, place),
                 token_phases(config, tensors, widths, place, n_threads, Isa::kScalar), kRates);
}

TEST_CASE("Of a tensor the longer of reading and computing counts; phases and state are added") {
  TokenWork work;
  work[0] = {{100'000'000, 20'000'000, false}};      // 10 ms to read, 1 ms to compute
  work[1] = {{1'000'000, 200'000'000, false},        // 0.1 ms, 10 ms
             {1'000'000, 200'000'000, true}};        // 0.1 ms, 5 ms at the rate of modules
  work[kStateStage] = {{5'000'000, 20'000, false}};  // 1 ms
  TokenPhases phases;
  phases.by_stage[2] = 2000;
  phases.of_no_stage = 500;
  const Prediction p = predict(work, phases, kRates);
  CHECK(p.stages[0].seconds() == doctest::Approx(10e-3));
  CHECK(p.stages[0].bound() == Bound::kReading);
  CHECK(p.stages[1].seconds() == doctest::Approx(15e-3));
  CHECK(p.stages[1].bound() == Bound::kArithmetic);
  CHECK(p.stages[2].seconds() == doctest::Approx(2e-3));
  CHECK(p.stages[2].bound() == Bound::kPhases);
  CHECK(p.stages[kStateStage].seconds() == doctest::Approx(1e-3));
  CHECK(p.total.seconds() == doctest::Approx(28.5e-3));
  CHECK(p.total.phases == doctest::Approx(2500));
  CHECK(p.total.bytes == 107'000'000);
  CHECK(p.total.multiply_adds == 420'020'000);
  CHECK(p.binding_stage() == 1);
}

struct PresetRow {
  const char* preset;
  bool dense;
  double touched, macs;  ///< millions per token, without what attention does with the context
  std::uint64_t kv_bytes_per_slot;
};

// Source: the weight lists of Trax's models, rounded as printed: elements that a token touches, and
// multiply-adds of matrices, of which a multiplicative layer does as many as a dense one. Keys and values of
// a position in f32: two rows of d_model for each block and sublayer.
constexpr PresetRow kPresetRows[] = {
    {"lm-default", true, 35.33, 35.3, 24'576},          {"lm1b-24L", true, 335.11, 334.8, 196'608},
    {"lm1b-24L", false, 33.80, 112.7, 196'608},         {"c4-medium", true, 435.92, 435.4, 393'216},
    {"c4-medium", false, 39.63, 173.0, 393'216},        {"lm-17B", true, 16'718, 16'716, 1'105'920},
    {"lm-17B", false, 171.2, 1983, 1'032'192},          {"terraformer-17B", true, 14'641, 14'639, 1'474'560},
    {"terraformer-17B", false, 195.2, 3117, 1'769'472},
};

TEST_CASE("Parameters, multiply-adds and K/V bytes of a token are those of the presets' weight lists") {
  for (const PresetRow& row : kPresetRows) {
    CAPTURE(std::string(row.preset));
    CAPTURE(row.dense);
    const ModelConfig config = preset_config(row.preset, row.dense);
    const LayerCost total = model_cost(config, stored_plan(config, DType::kF32)).total;
    // Trax stores the controller's bias as a matrix, so the lists count it as multiply-adds.
    const std::uint64_t bias = row.dense ? 0 : std::uint64_t{config.decoder.n_layers} * config.d_ff;
    const auto agrees = [](std::uint64_t value, double printed, double unit) {
      CHECK(std::abs(static_cast<double>(value) / 1e6 - printed) <= 0.5 * unit + 1e-6);
    };
    agrees(total.touched, row.touched, row.touched > 1000 ? 1 : row.touched > 100 && !row.dense ? 0.1 : 0.01);
    agrees(total.multiply_adds + bias, row.macs, row.macs > 1000 ? 1 : 0.1);
    CHECK(total.touched_bytes == 4 * total.touched);
    const StatePlan plan = state_plan(config);
    const auto at = [&](std::size_t position) { return state_cost(config, plan, {.position = position}); };
    CHECK(at(9).bytes - at(8).bytes == row.kv_bytes_per_slot);
    // 2 n H d_head multiply-adds for n slots: one for each number in the keys and values.
    CHECK(at(9).multiply_adds - at(8).multiply_adds == row.kv_bytes_per_slot / sizeof(float));
  }
}

TEST_CASE("One dense layer by hand: 2 d m feed-forward, 4 d^2 attention") {
  ModelConfig config = preset_config("lm-default", /*dense=*/true);
  config.decoder.n_layers = 1;
  const ModelCost cost = model_cost(config, stored_plan(config, DType::kBf16));
  const std::uint64_t d = config.d_model, m = config.d_ff, v = config.vocab_size;
  const auto& of = cost.by_kind;
  CHECK(of[static_cast<std::size_t>(LayerKind::kFeedForward)].multiply_adds == 2 * d * m);
  CHECK(of[static_cast<std::size_t>(LayerKind::kAttention)].multiply_adds == 4 * d * d);
  CHECK(of[static_cast<std::size_t>(LayerKind::kLogits)].multiply_adds == d * v);
  // bf16 matrices and f32 biases.
  CHECK(of[static_cast<std::size_t>(LayerKind::kFeedForward)].touched_bytes == 2 * 2 * d * m + 4 * (m + d));
}

TEST_CASE("A token takes longer the more it has to attend to, and less with coarser keys and values") {
  const ModelConfig config = decoder_as_language_model(preset_config("c4-medium", false));
  double before = 0;
  for (const std::size_t position : {0U, 1U, 511U, 2047U, 32767U}) {
    const double seconds = predicted(config, DType::kQ8, {.position = position}).total.seconds();
    CHECK(seconds > before);
    before = seconds;
  }
  before = std::numeric_limits<double>::max();
  for (const KvType type : {KvType::kF32, KvType::kBf16, KvType::kQ8, KvType::kQ4}) {
    const double seconds = predicted(config, DType::kQ8, {.kv_type = type, .position = 2047}).total.seconds();
    CHECK(seconds < before);
    before = seconds;
  }
}

TEST_CASE("A nested width takes its part of the units and nothing else; one per block is the mean") {
  ModelConfig config = preset_config("lm1b-24L", false);
  config.decoder.ff.widths = {config.d_ff / 2, config.d_ff};
  const auto tensors = stored_plan(config, DType::kQ8);
  const std::uint32_t half = config.d_ff / 2;
  const ModelCost whole = model_cost(config, tensors);
  const ModelCost narrow = model_cost(config, tensors, {&half, 1});
  const auto part = [](const ModelCost& cost, LayerKind kind) {
    return cost.by_kind[static_cast<std::size_t>(kind)];
  };
  CHECK(part(narrow, LayerKind::kAttention).touched == part(whole, LayerKind::kAttention).touched);
  CHECK(part(narrow, LayerKind::kLogits).multiply_adds == part(whole, LayerKind::kLogits).multiply_adds);
  // Units [F, 2, d] of which F / N are read: 2 d F / N, halved.
  const std::uint64_t units = 2ULL * config.d_model * config.d_ff / config.decoder.ff.block_size;
  const std::uint64_t bias = config.d_model;
  CHECK(part(whole, LayerKind::kFeedForward).touched == 24 * (units + bias));
  CHECK(part(narrow, LayerKind::kFeedForward).touched == 24 * (units / 2 + bias));
  CHECK(narrow.total.parameters == whole.total.parameters);
  CHECK(narrow.total.touched_bytes < whole.total.touched_bytes);

  std::vector<std::uint32_t> mixed(24, half);
  std::fill(mixed.begin(), mixed.begin() + 12, config.d_ff);
  const std::uint64_t sum = whole.total.touched + narrow.total.touched;
  CHECK(2 * model_cost(config, tensors, mixed).total.touched == sum);
  CHECK(predicted(config, DType::kQ8, {}, mixed).total.seconds() <
        predicted(config, DType::kQ8, {}).total.seconds());
}

TEST_CASE("Stages add up, and a dense model at short context is bound by reading its weights") {
  const Prediction p = predicted(preset_config("lm1b-24L", true), DType::kBf16, {.position = 15}, {}, 4);
  double seconds = 0;
  for (const StageTime& stage : p.stages) seconds += stage.seconds();
  CHECK(p.total.seconds() == doctest::Approx(seconds));
  CHECK(p.binding_stage() == static_cast<std::size_t>(LayerKind::kFeedForward));
  CHECK(p.total.bound() == Bound::kReading);
  CHECK(p.total.phases > 24);
  CHECK(predicted(preset_config("lm1b-24L", true), DType::kBf16, {.position = 15}).total.phases == 0);
}

TEST_CASE("Every stage and bound has a name") {
  CHECK(std::string(stage_name(kStateStage)) == "state");
  CHECK(std::string(stage_name(0)) == "embedding");
  CHECK(std::string(bound_name(Bound::kArithmetic)) == "arithmetic");
}

TEST_CASE("Rates that are no rates are refused by name") {
  const auto refused = [](const std::string& name, MachineRates rates) {
    test::expect_error(ErrorCode::kBadArgument, name, [&] { predict({}, {}, rates); });
  };
  MachineRates rates = kRates;
  rates.weight_bytes_per_s = 0;
  refused("weight_bytes_per_s: expected a positive rate, found 0", rates);
  rates = kRates;
  rates.state_bytes_per_s = std::nan("");
  refused("state_bytes_per_s", rates);
  rates = kRates;
  rates.compute.module_multiply_adds_per_s = -1;
  refused("module_multiply_adds_per_s", rates);
  rates = kRates;
  rates.compute.seconds_per_phase = -1;
  refused("seconds_per_phase: expected 0 or more", rates);
}

}  // namespace
}  // namespace terrace
