// SPDX-License-Identifier: Apache-2.0
#include "models/cost_model.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "models/model_cost.h"
#include "models/presets.h"
#include "models/token_cut.h"
#include "tests/support/expect_error.h"

namespace terrace {
namespace {

/// Round figures of no machine: 10 GB/s of weights, 4 GB/s of one thread, 2 GB/s of scattered rows, 5 GB/s of
/// state, 1 us per phase.
const MachineRates kRates{
    .team = {.compute = {.multiply_adds_per_s = 20e9, .module_multiply_adds_per_s = 40e9},
             .weight_bytes_per_s = 10e9},
    .leader = {.compute = {.multiply_adds_per_s = 10e9, .module_multiply_adds_per_s = 20e9},
               .weight_bytes_per_s = 4e9},
    .scattered_bytes_per_s = 2e9,
    .state_bytes_per_s = 5e9,
    .seconds_per_phase = 1e-6};

Prediction predicted(const ModelConfig& config, DType dtype, const TokenPlace& place,
                     std::span<const std::uint32_t> widths = {}, std::size_t n_threads = 1) {
  const auto tensors = stored_plan(config, dtype);
  const TokenCut cut = token_cut(config, tensors, widths, place, n_threads, Isa::kScalar);
  return predict(token_work(config, tensors, widths, place, cut.shared), cut.phases, kRates);
}

TEST_CASE("Of a tensor the longer of reading and computing counts; phases and state are added") {
  TokenWork work;
  work[0] = {{.bytes = 100'000'000, .multiply_adds = 20'000'000}};                            // 10 ms, 1 ms
  work[1] = {{.bytes = 1'000'000, .multiply_adds = 200'000'000},                              // 0.1 ms, 10 ms
             {.bytes = 1'000'000, .multiply_adds = 200'000'000, .many_rows = true}};          // 0.1 ms, 5 ms
  work[3] = {{.bytes = 8'000'000, .multiply_adds = 10'000'000, .shared = false},              // 2 ms, 1 ms
             {.bytes = 400'000, .multiply_adds = 40'000'000, .shared = false},                // 0.1 ms, 4 ms
             {.bytes = 2'000'000, .multiply_adds = 10'000'000, .scattered = true},            // 1 ms, 0.5 ms
             {.bytes = 0, .multiply_adds = 20'000'000, .many_rows = true, .shared = false}};  // 1 ms
  work[kStateStage] = {{.bytes = 5'000'000, .multiply_adds = 20'000}};                        // 1 ms
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
  CHECK(p.stages[3].reading_s == doctest::Approx(3e-3));
  CHECK(p.stages[3].arithmetic_s == doctest::Approx(5e-3));
  CHECK(p.stages[kStateStage].seconds() == doctest::Approx(1e-3));
  CHECK(p.total.seconds() == doctest::Approx(36.5e-3));
  CHECK(p.total.phases == doctest::Approx(2500));
  CHECK(p.total.bytes == 117'400'000);
  CHECK(p.total.multiply_adds == 500'020'000);
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
  rates.team.weight_bytes_per_s = 0;
  refused("team.weight_bytes_per_s: expected a positive rate, found 0", rates);
  rates = kRates;
  rates.leader.compute.multiply_adds_per_s = 0;
  refused("leader.multiply_adds_per_s", rates);
  rates = kRates;
  rates.state_bytes_per_s = std::nan("");
  refused("memory.state_bytes_per_s", rates);
  rates = kRates;
  rates.scattered_bytes_per_s = 0;
  refused("memory.scattered_bytes_per_s", rates);
  rates = kRates;
  rates.team.compute.module_multiply_adds_per_s = -1;
  refused("team.module_multiply_adds_per_s", rates);
  rates = kRates;
  rates.seconds_per_phase = -1;
  refused("seconds_per_phase: expected 0 or more", rates);
}

TEST_CASE("Rows that a token chooses are those of a sparse feed-forward layer, and take longer than others") {
  const ModelConfig config = preset_config("lm1b-24L", false);
  const auto tensors = stored_plan(config, DType::kQ8);
  const ScatteredRows rows = scattered_rows(config, tensors);
  CHECK(rows.row_bytes == config.d_model);
  const std::uint64_t units = std::uint64_t{24} * 2 * config.d_ff;
  CHECK(rows.bytes == units * (config.d_model + sizeof(float)));
  const ModelConfig dense = preset_config("lm1b-24L", true);
  CHECK(scattered_rows(dense, stored_plan(dense, DType::kQ8)).bytes == 0);

  const TokenWork work = token_work(config, tensors, {}, {}, std::vector<bool>(tensors.size(), true));
  const auto& of_units = work[static_cast<std::size_t>(LayerKind::kFeedForward)];
  CHECK(std::count_if(of_units.begin(), of_units.end(), [](const auto& i) { return i.scattered; }) == 24);
  const auto& of_controller = work[static_cast<std::size_t>(LayerKind::kController)];
  CHECK(std::none_of(of_controller.begin(), of_controller.end(), [](const auto& i) { return i.scattered; }));
  test::expect_error(ErrorCode::kBadArgument, "a cut of 1 tensors",
                     [&] { token_work(config, tensors, {}, {}, {true}); });
}

}  // namespace
}  // namespace terrace
