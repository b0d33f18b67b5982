// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmark/row.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/common/table.h"

namespace terrace::tools {
namespace {

nlohmann::ordered_json as_json(const std::optional<double>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

nlohmann::ordered_json as_json(const BenchRow& row) {
  return {{"model", row.model},
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
}

/// `value` with so many digits after the point, or a dash.
std::string cell(const std::optional<double>& value, int digits, const char* unit = "") {
  return value ? fmt::format("{:.{}f}{}", *value, digits, unit) : std::string("-");
}

std::optional<double> scaled(const std::optional<double>& value, double factor) {
  return value ? std::optional(*value * factor) : std::nullopt;
}

}  // namespace

std::optional<double> BenchRow::gb_per_s() const noexcept {
  return scaled(bytes_per_token, tokens_per_s / 1e9);
}

std::optional<double> BenchRow::bw_share() const noexcept { return scaled(gb_per_s(), 1 / read_bw_gb_per_s); }

std::string bench_markdown(const std::vector<BenchRow>& rows) {
  using Align = Table::Align;
  Table table({{"model", Align::kLeft},
               {"variant", Align::kLeft},
               {"dtype", Align::kLeft},
               {"threads"},
               {"test", Align::kLeft},
               {"t/s"},
               {"min-max", Align::kRight},
               {"ms/token"},
               {"MB/token"},
               {"GB/s"},
               {"% of read bw"},
               {"vs dense"}});
  for (const BenchRow& row : rows) {
    std::string test = row.test + std::to_string(row.n_tokens);
    if (row.depth > 0) test += " @ d" + std::to_string(row.depth);
    table.add_row({row.model, row.variant, row.dtype, std::to_string(row.threads), test,
                   fmt::format("{:.2f}", row.tokens_per_s),
                   fmt::format("{:.2f}-{:.2f}", row.tokens_per_s_min, row.tokens_per_s_max),
                   fmt::format("{:.3f}", row.ms_per_token()), cell(scaled(row.bytes_per_token, 1e-6), 1),
                   cell(row.gb_per_s(), 1), cell(scaled(row.bw_share(), 100), 0),
                   cell(row.speedup_vs_dense, 2, "x")});
  }
  return table.markdown();
}

std::string bench_csv(const std::vector<BenchRow>& rows) {
  std::vector<Table::Column> columns;
  const auto example = as_json(BenchRow());
  for (const auto& [key, value] : example.items()) columns.push_back({key});
  Table table(std::move(columns));
  for (const BenchRow& row : rows) {
    std::vector<std::string> cells;
    for (const auto& value : as_json(row)) {
      cells.push_back(value.is_null() ? "" : value.is_string() ? value.get<std::string>() : value.dump());
    }
    table.add_row(std::move(cells));
  }
  return table.csv();
}

std::string bench_json(const std::vector<BenchRow>& rows) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const BenchRow& row : rows) list.push_back(as_json(row));
  return list.dump(2) + "\n";
}

}  // namespace terrace::tools
