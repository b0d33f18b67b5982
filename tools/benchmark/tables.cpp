// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmark/tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "tools/common/table.h"

namespace terrace::tools {
namespace {

using Align = Table::Align;

/// `value` times `factor` with so many digits after the point, or a dash.
std::string cell(const std::optional<double>& value, int digits, double factor = 1, const char* unit = "") {
  return value ? fmt::format("{:.{}f}{}", *value * factor, digits, unit) : std::string("-");
}

/// What the rows of one table may differ in, in words: "tg32 @ d512".
std::string test_name(const BenchRow& row) {
  std::string test = row.test + std::to_string(row.n_tokens);
  if (row.depth > 0) test += " @ d" + std::to_string(row.depth);
  return test;
}

std::vector<BenchRow> profiled(const std::vector<BenchRow>& rows) {
  std::vector<BenchRow> some;
  std::copy_if(rows.begin(), rows.end(), std::back_inserter(some),
               [](const BenchRow& row) { return row.profile.has_value(); });
  return some;
}

/// The dense row of the same run, if there is one.
const BenchRow* dense_row(const std::vector<BenchRow>& rows, const BenchRow& of) {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const BenchRow& row) {
    return row.variant == "dense" && row.dtype == of.dtype && row.threads == of.threads &&
           row.test == of.test && row.depth == of.depth;
  });
  return found == rows.end() ? nullptr : &*found;
}

std::optional<double> ratio(const std::optional<double>& a, const std::optional<double>& b) {
  return a && b ? std::optional(*a / *b) : std::nullopt;
}

}  // namespace

std::string speed_table(const std::vector<BenchRow>& rows) {
  if (rows.empty()) return {};
  Table table({{"model", Align::kLeft},
               {"variant", Align::kLeft},
               {"dtype", Align::kLeft},
               {"threads"},
               {"test", Align::kLeft},
               {"t/s"},
               {"min-max"},
               {"ms/token"},
               {"predicted"},
               {"MB/token"},
               {"GB/s"},
               {"% of read bw"},
               {"vs dense"}});
  for (const BenchRow& row : rows) {
    table.add_row({row.model, row.variant, row.dtype, std::to_string(row.threads), test_name(row),
                   fmt::format("{:.2f}", row.tokens_per_s),
                   fmt::format("{:.2f}-{:.2f}", row.tokens_per_s_min, row.tokens_per_s_max),
                   cell(row.ms_per_token(), 3), cell(row.predicted_ms_per_token, 3),
                   cell(row.bytes_per_token, 1, 1e-6), cell(row.gb_per_s(), 1), cell(row.bw_share(), 0, 100),
                   cell(row.speedup_vs_dense, 2, 1, "x")});
  }
  return table.markdown();
}

std::string table1(const std::vector<BenchRow>& rows) {
  const auto shown = profiled(rows);
  if (shown.empty()) return {};
  const bool cut = std::any_of(shown.begin(), shown.end(),
                               [](const auto& row) { return row.blocks != row.preset_blocks; });
  std::vector<Table::Column> columns{{"model", Align::kLeft},
                                     {"variant", Align::kLeft},
                                     {"dtype", Align::kLeft},
                                     {"threads"},
                                     {"test", Align::kLeft},
                                     {"M parameters"},
                                     {"blocks"},
                                     {"ms/token"},
                                     {"vs dense"},
                                     {"ms/block"},
                                     {"vs dense"},
                                     {"predicted ms/token"},
                                     {"MB/token"},
                                     {"% of read bw"}};
  if (cut) columns.insert(columns.end(), {{"all blocks"}, {"ms/token"}, {"vs dense"}});
  Table table(std::move(columns));
  for (const BenchRow& row : shown) {
    const BenchRow* dense = dense_row(shown, row);
    const auto speedup = [&](std::optional<double> (BenchRow::*figure)() const noexcept) {
      return dense ? cell(ratio((dense->*figure)(), (row.*figure)()), 2, 1, "x") : std::string("-");
    };
    std::vector<std::string> cells{row.model,
                                   row.variant,
                                   row.dtype,
                                   std::to_string(row.threads),
                                   test_name(row),
                                   fmt::format("{:.0f}", static_cast<double>(row.parameters) / 1e6),
                                   std::to_string(row.blocks),
                                   cell(row.ms_per_token(), 3),
                                   cell(row.speedup_vs_dense, 2, 1, "x"),
                                   cell(row.ms_per_block(), 4),
                                   speedup(&BenchRow::ms_per_block),
                                   cell(row.predicted_ms_per_token, 3),
                                   cell(row.bytes_per_token, 1, 1e-6),
                                   cell(row.bw_share(), 0, 100)};
    if (cut) {
      cells.insert(cells.end(), {std::to_string(row.preset_blocks), cell(row.ms_per_token_all_blocks(), 2),
                                 speedup(&BenchRow::ms_per_token_all_blocks)});
    }
    table.add_row(std::move(cells));
  }
  std::string text = table.markdown();
  if (cut) {
    text +=
        "\nParameters, ms/token and MB/token are those of the blocks that ran. \"All blocks\" is not "
        "measured: "
        "it adds ms/block for every block left out.\n";
  }
  return text;
}

std::string profile_table(const std::vector<BenchRow>& rows) {
  const auto shown = profiled(rows);
  if (shown.empty()) return {};
  std::vector<Table::Column> columns{{"ms/token (share)", Align::kLeft}};
  for (const BenchRow& row : shown) {
    columns.push_back({fmt::format("{} {}, {}t, {}", row.variant, row.dtype, row.threads, test_name(row))});
  }
  Table table(std::move(columns));
  const auto add = [&](const std::string& name, const auto& figure) {
    std::vector<std::string> cells{name};
    for (const BenchRow& row : shown) cells.push_back(figure(*row.profile));
    table.add_row(std::move(cells));
  };
  const auto percent = [](double share) { return fmt::format("{:.1f} %", 100 * share); };
  for (std::size_t z = 0; z < kZones; ++z) {
    add(zone_name(static_cast<Zone>(z)), [&](const TokenProfile& p) {
      return fmt::format("{:.4f} ({})", 1e3 * p.zone_seconds[z], percent(p.zone_seconds[z] / p.seconds));
    });
  }
  add("token, profiled", [](const TokenProfile& p) { return fmt::format("{:.4f}", 1e3 * p.seconds); });
  add("phases", [](const TokenProfile& p) { return fmt::format("{:.0f}", p.phases); });
  add("synchronisation", [&](const TokenProfile& p) { return percent(p.sync_share); });
  add("leader alone", [&](const TokenProfile& p) { return percent(p.leader_alone_share); });
  return table.markdown();
}

}  // namespace terrace::tools
