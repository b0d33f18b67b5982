// SPDX-License-Identifier: Apache-2.0
#include "models/cost_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "engine/error.h"
#include "engine/prepared_rows.h"
#include "models/model_cost.h"

namespace terrace {
namespace {

void check_rate(const char* name, double rate) {
  TERRACE_CHECK(rate > 0, kBadArgument, fmt::format("{}: expected a positive rate, found {}", name, rate));
}

void check_rates(const MachineRates& rates) {
  check_rate("weight_bytes_per_s", rates.weight_bytes_per_s);
  check_rate("state_bytes_per_s", rates.state_bytes_per_s);
  check_rate("multiply_adds_per_s", rates.compute.multiply_adds_per_s);
  check_rate("module_multiply_adds_per_s", rates.compute.module_multiply_adds_per_s);
  TERRACE_CHECK(
      rates.compute.seconds_per_phase >= 0, kBadArgument,
      fmt::format("seconds_per_phase: expected 0 or more, found {}", rates.compute.seconds_per_phase));
}

}  // namespace

const char* stage_name(std::size_t stage) noexcept {
  return stage == kStateStage ? "state" : layer_kind_name(static_cast<LayerKind>(stage));
}

const char* bound_name(Bound bound) noexcept {
  switch (bound) {
    case Bound::kReading:
      return "reading";
    case Bound::kArithmetic:
      return "arithmetic";
    case Bound::kPhases:
      return "phases";
  }
  return "?";
}

TokenWork token_work(const ModelConfig& config, std::span<const StoredTensor> tensors,
                     std::span<const std::uint32_t> widths, const TokenPlace& place) {
  TokenWork work;
  for (const StoredTensor& tensor : tensors) {
    const LayerCost cost = layer_cost(config, tensor, widths);
    if (cost.touched == 0) continue;
    work[static_cast<std::size_t>(tensor.planned.kind)].push_back(
        {cost.touched_bytes, cost.multiply_adds, tensor.planned.uses >= PreparedRows::kMinPacked});
  }
  const StateCost state = state_cost(config, state_plan(config), place);
  work[kStateStage].push_back({state.bytes, state.multiply_adds, false});
  return work;
}

double TokenPhases::total() const noexcept {
  return std::accumulate(by_stage.begin(), by_stage.end(), of_no_stage);
}

Bound StageTime::bound() const noexcept {
  if (phases_s > std::max(reading_s, arithmetic_s)) return Bound::kPhases;
  return arithmetic_s > reading_s ? Bound::kArithmetic : Bound::kReading;
}

StageTime& StageTime::operator+=(const StageTime& other) noexcept {
  bytes += other.bytes;
  multiply_adds += other.multiply_adds;
  phases += other.phases;
  reading_s += other.reading_s;
  arithmetic_s += other.arithmetic_s;
  phases_s += other.phases_s;
  return *this;
}

std::size_t Prediction::binding_stage() const noexcept {
  const auto longest = std::max_element(
      stages.begin(), stages.end(), [](const auto& a, const auto& b) { return a.seconds() < b.seconds(); });
  return static_cast<std::size_t>(longest - stages.begin());
}

Prediction predict(const TokenWork& work, const TokenPhases& phases, const MachineRates& rates) {
  check_rates(rates);
  Prediction prediction;
  for (std::size_t s = 0; s < kStages; ++s) {
    StageTime& stage = prediction.stages[s];
    const double bytes_per_s = s == kStateStage ? rates.state_bytes_per_s : rates.weight_bytes_per_s;
    for (const WorkItem& item : work[s]) {
      const double reading = static_cast<double>(item.bytes) / bytes_per_s;
      const double arithmetic =
          static_cast<double>(item.multiply_adds) /
          (item.many_rows ? rates.compute.module_multiply_adds_per_s : rates.compute.multiply_adds_per_s);
      (reading < arithmetic ? stage.arithmetic_s : stage.reading_s) += std::max(reading, arithmetic);
      stage.bytes += item.bytes;
      stage.multiply_adds += item.multiply_adds;
    }
    stage.phases = phases.by_stage[s];
    stage.phases_s = stage.phases * rates.compute.seconds_per_phase;
    prediction.total += stage;
  }
  prediction.total.phases += phases.of_no_stage;
  prediction.total.phases_s += phases.of_no_stage * rates.compute.seconds_per_phase;
  return prediction;
}

}  // namespace terrace
