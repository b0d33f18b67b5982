// SPDX-License-Identifier: Apache-2.0
#include "tools/planning/plan_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "tools/common/json_text.h"
#include "tools/common/resources.h"
#include "tools/common/table.h"

namespace terrace::tools {
namespace {

using Align = Table::Align;
using Json = nlohmann::ordered_json;

double mega(std::uint64_t value) noexcept { return static_cast<double>(value) / 1e6; }

std::string setting_text(const PlanPoint& point) {
  return fmt::format("{} weights, {} keys and values, width {}, {} thread{}", dtype_name(point.stored->dtype),
                     kv_type_name(point.kv_type), width_text(*point.widths), point.n_threads,
                     point.n_threads == 1 ? "" : "s");
}

std::string rates_text(const MachineRates& rates) {
  const ThreadRates& team = rates.team;
  const ThreadRates& leader = rates.leader;
  Table table({{"measured", Align::kLeft}, {"all threads"}, {"one"}});
  const auto row = [&table](const char* what, double of_all, std::optional<double> of_one, double unit) {
    table.add_row(
        {what, fmt::format("{:.1f}", of_all / unit), of_one ? fmt::format("{:.1f}", *of_one / unit) : ""});
  };
  row("GB/s, memory in order", rates.state_bytes_per_s, {}, 1e9);
  row("GB/s, the weights of a token", team.weight_bytes_per_s, leader.weight_bytes_per_s, 1e9);
  row("GB/s, rows in no order", rates.scattered_bytes_per_s, {}, 1e9);
  row("G multiply-adds/s", team.compute.multiply_adds_per_s, leader.compute.multiply_adds_per_s, 1e9);
  row("the same in layers of modules", team.compute.module_multiply_adds_per_s,
      leader.compute.module_multiply_adds_per_s, 1e9);
  table.add_row({"us per phase", fmt::format("{:.2f}", 1e6 * rates.seconds_per_phase), ""});
  return table.markdown();
}

/// The rates of some threads, for JSON.
Json rates_json(const ThreadRates& rates) {
  return {{"weight_bytes_per_s", rates.weight_bytes_per_s},
          {"multiply_adds_per_s", rates.compute.multiply_adds_per_s},
          {"module_multiply_adds_per_s", rates.compute.module_multiply_adds_per_s}};
}

std::string memory_text(const PlanMemory& memory) {
  Table table({{"memory", Align::kLeft}, {"MB"}});
  const auto row = [&table](const char* what, std::uint64_t bytes) {
    table.add_row({what, fmt::format("{:.1f}", mega(bytes))});
  };
  row("weights", memory.weights);
  row("keys, values, state", memory.session);
  row("scratch", memory.workspace);
  row("needed", memory.needed());
  row("available", memory.available);
  std::string text = table.markdown();
  if (memory.fits()) return text + "The model fits into memory.\n";
  const std::uint64_t others = memory.session + memory.workspace;
  return text +
         (others > memory.available
              ? "The context does not fit into memory: it has to be shorter.\n"
              : fmt::format("The model does not fit into memory: {} must be read from the disk when a token "
                            "needs them, which takes longer than is predicted here.\n",
                            format_bytes(memory.needed() - memory.available)));
}

std::string stages_text(const Prediction& prediction) {
  Table table({{"stage", Align::kLeft},
               {"MB read"},
               {"M multiply-adds"},
               {"phases"},
               {"ms"},
               {"%"},
               {"bound by", Align::kLeft}});
  const auto row = [&](const char* name, const StageTime& stage) {
    table.add_row({name, fmt::format("{:.3f}", mega(stage.bytes)),
                   fmt::format("{:.3f}", mega(stage.multiply_adds)), fmt::format("{:.0f}", stage.phases),
                   fmt::format("{:.4f}", 1e3 * stage.seconds()),
                   fmt::format("{:.1f}", 100 * stage.seconds() / prediction.total.seconds()),
                   bound_name(stage.bound())});
  };
  for (std::size_t s = 0; s < kStages; ++s) {
    if (prediction.stages[s].seconds() > 0) row(stage_name(s), prediction.stages[s]);
  }
  row("all", prediction.total);
  return table.markdown();
}

std::string totals_text(const PlanPoint& point) {
  return fmt::format(
      "predicted  {:.3f} ms/token, {:.1f} tokens/s, {:.1f} MB/token, {:.0f} % of the read bandwidth; {:.1f} "
      "M "
      "of {:.1f} M parameters\n",
      point.ms(), 1e3 / point.ms(), mega(point.prediction.total.bytes), 100 * point.bandwidth_share(),
      mega(point.active_parameters), mega(point.parameters));
}

/// A row for each combination of all but the context, which are the columns.
std::string points_text(const PlanReport& report) {
  const std::size_t n_contexts = report.request.contexts.size();
  std::vector<Table::Column> columns{
      {"dtype", Align::kLeft}, {"kv type", Align::kLeft}, {"width"}, {"threads"}, {"M active"}};
  for (const std::uint32_t context : report.request.contexts)
    columns.push_back({fmt::format("ms @ {}", context)});
  Table table(std::move(columns));
  for (std::size_t i = 0; i < report.points.size(); i += n_contexts) {
    const PlanPoint& point = report.points[i];
    std::vector<std::string> cells{dtype_name(point.stored->dtype), kv_type_name(point.kv_type),
                                   width_text(*point.widths), std::to_string(point.n_threads),
                                   fmt::format("{:.1f}", mega(point.active_parameters))};
    for (std::size_t c = 0; c < n_contexts; ++c) {
      cells.push_back(fmt::format("{:.3f}", report.points[i + c].ms()));
    }
    table.add_row(std::move(cells));
  }
  return table.markdown();
}

std::string budget_text(const PlanReport& report) {
  const PlanPoint& point = report.shown;
  if (report.fits) {
    return fmt::format("budget     {:g} ms/token: the widest that fits is {}\n", *report.budget_ms,
                       setting_text(point));
  }
  const std::size_t stage = point.prediction.binding_stage();
  return fmt::format(
      "budget     {:g} ms/token: nothing fits. The fastest is {} with {:.3f} ms, most of it in the stage {}, "
      "bound by {}\n",
      *report.budget_ms, setting_text(point), point.ms(), stage_name(stage),
      bound_name(point.prediction.stages[stage].bound()));
}

Json setting_json(const PlanPoint& point) {
  return {{"dtype", dtype_name(point.stored->dtype)},
          {"kv_type", kv_type_name(point.kv_type)},
          {"width", *point.widths},
          {"threads", point.n_threads},
          {"context", point.context},
          {"active_parameters", point.active_parameters},
          {"ms_per_token", point.ms()}};
}

Json stage_json(const StageTime& stage, double seconds) {
  return {{"bytes", stage.bytes},   {"multiply_adds", stage.multiply_adds},
          {"phases", stage.phases}, {"ms", 1e3 * stage.seconds()},
          {"share", seconds},       {"bound_by", bound_name(stage.bound())}};
}

}  // namespace

std::string PlanReport::text() const {
  std::string out = fmt::format("model      {}\nsetting    {}, context {}", request.name, setting_text(shown),
                                shown.context);
  if (request.document > 0) out += fmt::format(", document {}", request.document);
  out += "\n\n" + rates_text(shown.rates) + "\n" + memory_text(plan_memory(request, shown)) + "\n" +
         stages_text(shown.prediction) + totals_text(shown);
  if (points.size() > 1) out += "\n" + points_text(*this);
  if (budget_ms) out += "\n" + budget_text(*this);
  return out;
}

std::string PlanReport::json() const {
  const Prediction& prediction = shown.prediction;
  const PlanMemory memory = plan_memory(request, shown);
  Json stages = Json::object();
  for (std::size_t s = 0; s < kStages; ++s) {
    stages[stage_name(s)] =
        stage_json(prediction.stages[s], prediction.stages[s].seconds() / prediction.total.seconds());
  }
  Json all = Json::array();
  for (const PlanPoint& point : points) {
    all.push_back(setting_json(point));
    if (budget_ms) all.back()["fits_budget"] = point.ms() <= *budget_ms;
  }
  const StageTime& total = prediction.total;
  Json out = {{"model", request.name},
              {"parameters", shown.parameters},
              {"document", request.document},
              {"setting", setting_json(shown)},
              {"rates",
               {{"team", rates_json(shown.rates.team)},
                {"leader", rates_json(shown.rates.leader)},
                {"scattered_bytes_per_s", shown.rates.scattered_bytes_per_s},
                {"state_bytes_per_s", shown.rates.state_bytes_per_s},
                {"seconds_per_phase", shown.rates.seconds_per_phase}}},
              {"memory",
               {{"weight_bytes", memory.weights},
                {"session_bytes", memory.session},
                {"scratch_bytes", memory.workspace},
                {"needed_bytes", memory.needed()},
                {"available_bytes", memory.available},
                {"fits", memory.fits()}}},
              {"stages", stages},
              {"total",
               {{"ms_per_token", shown.ms()},
                {"tokens_per_s", 1e3 / shown.ms()},
                {"bytes_per_token", total.bytes},
                {"multiply_adds_per_token", total.multiply_adds},
                {"phases_per_token", total.phases},
                {"bw_share", shown.bandwidth_share()},
                {"binding_stage", stage_name(prediction.binding_stage())}}},
              {"points", all}};
  if (budget_ms) out["budget"] = {{"ms_per_token", *budget_ms}, {"fits", fits}};
  return json_text(out);
}

}  // namespace terrace::tools
