// SPDX-License-Identifier: Apache-2.0
#include "models/cost_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "engine/error.h"
#include "engine/prepared_rows.h"
#include "models/model_cost.h"
#include "models/token_cost.h"

namespace terrace {
namespace {

void check_rate(const char* whose, const char* name, double rate) {
  TERRACE_CHECK(rate > 0, kBadArgument,
                fmt::format("{}.{}: expected a positive rate, found {}", whose, name, rate));
}

void check_rates(const char* whose, const ThreadRates& rates) {
  check_rate(whose, "weight_bytes_per_s", rates.weight_bytes_per_s);
  check_rate(whose, "multiply_adds_per_s", rates.compute.multiply_adds_per_s);
  check_rate(whose, "module_multiply_adds_per_s", rates.compute.module_multiply_adds_per_s);
}

void check_rates(const MachineRates& rates) {
  check_rates("team", rates.team);
  check_rates("leader", rates.leader);
  check_rate("memory", "scattered_bytes_per_s", rates.scattered_bytes_per_s);
  check_rate("memory", "state_bytes_per_s", rates.state_bytes_per_s);
  TERRACE_CHECK(rates.seconds_per_phase >= 0, kBadArgument,
                fmt::format("seconds_per_phase: expected 0 or more, found {}", rates.seconds_per_phase));
}

/// Whether a token chooses rows of the tensor, one by one. (An expert is a long run of them.)
bool is_scattered(const ModelConfig& config, const PlannedTensor& tensor) noexcept {
  return config.decoder.ff.kind == FeedForwardConfig::Kind::kSparse && tensor.block && tensor.is_weight &&
         tensor.kind == LayerKind::kFeedForward;
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
                     std::span<const std::uint32_t> widths, const TokenPlace& place,
                     const std::vector<bool>& shared) {
  TERRACE_CHECK(shared.size() == tensors.size(), kBadArgument,
                fmt::format("a cut of {} tensors for a plan of {}", shared.size(), tensors.size()));
  TokenWork work;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const PlannedTensor& planned = tensors[i].planned;
    const LayerCost cost = layer_cost(config, tensors[i], widths);
    if (cost.touched == 0) continue;
    work[static_cast<std::size_t>(planned.kind)].push_back(
        {.bytes = cost.touched_bytes,
         .multiply_adds = cost.multiply_adds,
         .many_rows = planned.uses >= PreparedRows::kMinPacked,
         .scattered = is_scattered(config, planned),
         .shared = shared[i]});
  }
  const StateCost state = state_cost(config, state_plan(config), place);
  work[kStateStage].push_back({.bytes = state.bytes, .multiply_adds = state.multiply_adds});
  return work;
}

ScatteredRows scattered_rows(const ModelConfig& config, std::span<const StoredTensor> tensors) noexcept {
  ScatteredRows rows;
  for (const StoredTensor& tensor : tensors) {
    if (!is_scattered(config, tensor.planned)) continue;
    rows.bytes += stored_bytes(tensor.planned, tensor.dtype);
    rows.row_bytes = row_bytes(tensor.dtype, tensor.planned.columns());
  }
  return rows;
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
    for (const WorkItem& item : work[s]) {
      const ThreadRates& threads = item.shared ? rates.team : rates.leader;
      const double bytes_per_s = s == kStateStage ? rates.state_bytes_per_s
                                 : item.scattered ? rates.scattered_bytes_per_s
                                                  : threads.weight_bytes_per_s;
      const double reading = static_cast<double>(item.bytes) / bytes_per_s;
      const double arithmetic =
          static_cast<double>(item.multiply_adds) /
          (item.many_rows ? threads.compute.module_multiply_adds_per_s : threads.compute.multiply_adds_per_s);
      (reading < arithmetic ? stage.arithmetic_s : stage.reading_s) += std::max(reading, arithmetic);
      stage.bytes += item.bytes;
      stage.multiply_adds += item.multiply_adds;
    }
    stage.phases = phases.by_stage[s];
    stage.phases_s = stage.phases * rates.seconds_per_phase;
    prediction.total += stage;
  }
  prediction.total.phases += phases.of_no_stage;
  prediction.total.phases_s += phases.of_no_stage * rates.seconds_per_phase;
  return prediction;
}

}  // namespace terrace
