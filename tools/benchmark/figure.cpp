// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmark/figure.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "tools/benchmark/svg_chart.h"

namespace terrace::tools {
namespace {

constexpr const char* kTime = "ms per token";

/// What tells a row from the others in a legend.
class RowNames {
 public:
  explicit RowNames(const std::vector<BenchRow>& rows) {
    for (const BenchRow& row : rows) {
      dtypes_.insert(row.dtype);
      threads_.insert(row.threads);
      depths_.insert(row.depth);
    }
  }
  bool several_threads() const noexcept { return threads_.size() > 1; }
  bool several_depths() const noexcept { return depths_.size() > 1; }

  /// "c4-medium, q8, 2 threads": what all rows share.
  std::string common(const BenchRow& row) const {
    std::string name = row.model;
    if (row.blocks != row.preset_blocks) name += fmt::format(", {} blocks", row.blocks);
    if (dtypes_.size() == 1) name += ", " + row.dtype;
    if (!several_threads()) name += fmt::format(", {} thread{}", row.threads, row.threads > 1 ? "s" : "");
    if (!several_depths() && row.depth > 0) name += fmt::format(", context {}", row.depth);
    return name;
  }
  std::string series(const BenchRow& row, bool with_threads, bool with_depth) const {
    std::string name = row.variant;
    if (dtypes_.size() > 1) name += " " + row.dtype;
    if (with_threads && several_threads()) name += fmt::format(", {}t", row.threads);
    if (with_depth && several_depths()) name += fmt::format(" @ {}", row.depth);
    return name;
  }

 private:
  std::set<std::string> dtypes_;
  std::set<unsigned> threads_;
  std::set<std::size_t> depths_;
};

/// Adds a point to the series of that name, in the order in which names come.
void add_point(LineChart& chart, const std::string& name, double x, double y) {
  const auto same = [&](const LineChart::Series& series) { return series.name == name; };
  auto found = std::find_if(chart.series.begin(), chart.series.end(), same);
  if (found == chart.series.end()) found = chart.series.insert(chart.series.end(), {name, {}});
  const auto after = std::upper_bound(found->points.begin(), found->points.end(), std::pair(x, y));
  found->points.insert(after, {x, y});
}

/// The number after "=" of a sweep's variant.
double swept_value(const BenchRow& row) {
  const std::size_t equals = row.variant.find('=');
  double value = 0;
  std::from_chars(row.variant.data() + equals + 1, row.variant.data() + row.variant.size(), value);
  return value;
}

std::string sweep_chart(const std::vector<BenchRow>& rows, const RowNames& names, const Sweep& sweep) {
  LineChart chart{fmt::format("{} of {}", sweep.parameter, names.common(rows.front())),
                  sweep.parameter,
                  kTime,
                  true,
                  {},
                  {}};
  for (BenchRow row : rows) {
    if (row.variant == "dense") {
      chart.levels.push_back({names.series(row, true, true), row.ms_per_token()});
      continue;
    }
    const double x = swept_value(row);
    row.variant = "sparse";
    add_point(chart, names.series(row, true, true), x, row.ms_per_token());
    row.variant = "sparse, predicted";
    if (row.predicted_ms_per_token) {
      add_point(chart, names.series(row, true, true), x, *row.predicted_ms_per_token);
    }
  }
  return svg(chart);
}

std::string depth_chart(const std::vector<BenchRow>& rows, const RowNames& names) {
  LineChart chart{names.common(rows.front()), "tokens in the context", kTime, false, {}, {}};
  for (const BenchRow& row : rows) {
    add_point(chart, names.series(row, true, false), static_cast<double>(row.depth), row.ms_per_token());
  }
  return svg(chart);
}

std::string thread_chart(const std::vector<BenchRow>& rows, const RowNames& names) {
  LineChart chart{names.common(rows.front()), "threads", kTime, true, {}, {}};
  for (const BenchRow& row : rows) {
    add_point(chart, names.series(row, false, true), row.threads, row.ms_per_token());
  }
  return svg(chart);
}

std::string bar_chart(const std::vector<BenchRow>& rows, const RowNames& names) {
  BarChart chart{names.common(rows.front()), kTime, "", {}};
  for (const BenchRow& row : rows) {
    std::string label = fmt::format("{:.3g}", row.ms_per_token());
    if (row.speedup_vs_dense) label += fmt::format(" ({:.2f}x)", *row.speedup_vs_dense);
    chart.bars.push_back(
        {names.series(row, true, true), row.ms_per_token(), label, row.predicted_ms_per_token});
    if (row.predicted_ms_per_token) chart.mark_name = "predicted";
  }
  return svg(chart);
}

}  // namespace

std::string bench_svg(const std::vector<BenchRow>& rows, const std::optional<Sweep>& sweep) {
  std::vector<BenchRow> decode;
  std::copy_if(rows.begin(), rows.end(), std::back_inserter(decode),
               [](const BenchRow& row) { return row.test == "tg"; });
  if (decode.empty()) return svg(BarChart{"no decode test", kTime, "", {}});
  const RowNames names(decode);
  if (sweep) return sweep_chart(decode, names, *sweep);
  if (names.several_depths()) return depth_chart(decode, names);
  if (names.several_threads()) return thread_chart(decode, names);
  return bar_chart(decode, names);
}

}  // namespace terrace::tools
