// SPDX-License-Identifier: Apache-2.0
#include "tools/planning/plan_points.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "engine/paging.h"
#include "engine/runtime.h"
#include "models/model_cost.h"
#include "models/token_cut.h"
#include "tools/common/model_arguments.h"

namespace terrace::tools {
namespace {

/// The rates of one number of threads, for the widest of the widths.
MachineRates rates_for(const PlanRequest& request, const StoredModel& stored, Runtime& runtime) {
  std::uint64_t most = 0;
  for (const auto& widths : request.widths) {
    most = std::max(most, model_cost(request.config, stored.tensors, widths).total.touched_bytes);
  }
  return measure_machine_rates(runtime, stored.dtype, most, scattered_rows(request.config, stored.tensors));
}

void add_points(const PlanRequest& request, const StoredModel& stored, unsigned n_threads,
                const MachineRates& rates, std::vector<PlanPoint>& points) {
  for (const std::string& name : request.kv_types) {
    const KvType kv_type = kv_type_for(name, stored.dtype);
    for (const auto& widths : request.widths) {
      const LayerCost cost = model_cost(request.config, stored.tensors, widths).total;
      for (const std::uint32_t context : request.contexts) {
        const TokenPlace last{
            .kv_type = kv_type, .position = context - 1, .encoder_length = request.document};
        const TokenCut cut = token_cut(request.config, stored.tensors, widths, last, n_threads);
        const TokenWork work = token_work(request.config, stored.tensors, widths, last, cut.shared);
        points.push_back({&stored, kv_type, n_threads, &widths, context, rates, cost.parameters, cost.touched,
                          predict(work, cut.phases, rates)});
      }
    }
  }
}

}  // namespace

double PlanPoint::bandwidth_share() const noexcept {
  const StageTime& total = prediction.total;
  return static_cast<double>(total.bytes) / total.seconds() / rates.state_bytes_per_s;
}

std::vector<PlanPoint> plan_points(const PlanRequest& request) {
  std::vector<PlanPoint> points;
  for (const StoredModel& stored : request.stored) {
    for (const unsigned n_threads : request.threads) {
      Runtime runtime({.n_threads = n_threads});
      add_points(request, stored, n_threads, rates_for(request, stored, runtime), points);
    }
  }
  return points;
}

std::string width_text(const std::vector<std::uint32_t>& widths) {
  return fmt::format("{}", fmt::join(widths, ","));
}

PlanMemory plan_memory(const PlanRequest& request, const PlanPoint& point) {
  const ModelConfig& config = request.config;
  return {
      .weights = model_cost(config, point.stored->tensors).total.stored_bytes,
      .session = session_bytes(config, state_plan(config), point.kv_type, point.context, request.document),
      .workspace = pass_scratch_bytes(config),
      .available = available_memory_bytes()};
}

}  // namespace terrace::tools
