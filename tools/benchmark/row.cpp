// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmark/row.h"

#include <nlohmann/json.hpp>

#include "tools/common/json_text.h"
#include "tools/common/table.h"

namespace terrace::tools {
namespace {

using Json = nlohmann::ordered_json;

Json as_json(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

void add_details(const BenchRow& row, Json& json) {
  json["parameters"] = row.parameters;
  json["blocks"] = row.blocks;
  json["preset_blocks"] = row.preset_blocks;
  json["predicted_ms_per_token"] = as_json(row.predicted_ms_per_token);
  json["ms_per_block"] = as_json(row.ms_per_block());
  json["ms_per_token_all_blocks"] = as_json(row.ms_per_token_all_blocks());
  const auto profiled = [&](const auto& figure) {
    return row.profile ? Json(figure(*row.profile)) : Json(nullptr);
  };
  json["phases_per_token"] = profiled([](const TokenProfile& p) { return p.phases; });
  json["sync_share"] = profiled([](const TokenProfile& p) { return p.sync_share; });
  json["leader_alone_share"] = profiled([](const TokenProfile& p) { return p.leader_alone_share; });
  for (std::size_t z = 0; z < kZones; ++z) {
    json[std::string("ms_") + zone_name(static_cast<Zone>(z))] =
        profiled([&](const TokenProfile& p) { return 1e3 * p.zone_seconds[z]; });
  }
}

Json as_json(const BenchRow& row, bool details) {
  Json json = {{"model", row.model},
               {"variant", row.variant},
               {"dtype", row.dtype},
               {"threads", row.threads},
               {"test", row.test},
               {"depth", row.depth},
               {"n_tokens", row.n_tokens},
               {"tokens_per_s", row.tokens_per_s},
               {"tokens_per_s_min", row.tokens_per_s_min},
               {"tokens_per_s_max", row.tokens_per_s_max},
               {"ms_per_token", row.ms_per_token()},
               {"bytes_per_token", as_json(row.bytes_per_token)},
               {"gb_per_s", as_json(row.gb_per_s())},
               {"read_bw_gb_per_s", row.read_bw_gb_per_s},
               {"bw_share", as_json(row.bw_share())},
               {"speedup_vs_dense", as_json(row.speedup_vs_dense)}};
  if (details) add_details(row, json);
  return json;
}

}  // namespace

std::optional<double> BenchRow::gb_per_s() const noexcept {
  return bytes_per_token ? std::optional(*bytes_per_token * tokens_per_s / 1e9) : std::nullopt;
}

std::optional<double> BenchRow::bw_share() const noexcept {
  const auto rate = gb_per_s();
  return rate ? std::optional(*rate / read_bw_gb_per_s) : std::nullopt;
}

std::optional<double> BenchRow::ms_per_block() const noexcept {
  return profile ? std::optional(ms_per_token() * profile->block_share() / blocks) : std::nullopt;
}

std::optional<double> BenchRow::ms_per_token_all_blocks() const noexcept {
  const auto block = ms_per_block();
  return block ? std::optional(ms_per_token() + *block * (preset_blocks - blocks)) : std::nullopt;
}

std::string bench_csv(const std::vector<BenchRow>& rows, bool details) {
  std::vector<Table::Column> columns;
  const Json example = as_json(BenchRow(), details);
  for (const auto& [key, value] : example.items()) columns.push_back({key});
  Table table(std::move(columns));
  for (const BenchRow& row : rows) {
    std::vector<std::string> cells;
    for (const auto& value : as_json(row, details)) {
      cells.push_back(value.is_null() ? "" : value.is_string() ? value.get<std::string>() : value.dump());
    }
    table.add_row(std::move(cells));
  }
  return table.csv();
}

std::string bench_json(const std::vector<BenchRow>& rows, bool details) {
  Json list = Json::array();
  for (const BenchRow& row : rows) list.push_back(as_json(row, details));
  return json_text(list);
}

}  // namespace terrace::tools
