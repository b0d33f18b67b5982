// SPDX-License-Identifier: Apache-2.0
#include "tools/common/quantize_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "tools/common/json_text.h"
#include "tools/common/table.h"

namespace terrace::tools {
namespace {

/// Several tensors together.
struct Line {
  std::string name;
  std::vector<std::string> dtypes;  ///< "f32 -> q8", each once
  std::uint64_t n_tensors = 0;
  std::uint64_t elements = 0;
  std::uint64_t bytes_before = 0;
  std::uint64_t bytes_after = 0;
  RoundingError error;
  double worst = 0;  ///< largest relative error of one tensor

  void add(const TensorChange& change) {
    if (change.from != change.to) {
      const std::string step = fmt::format("{} -> {}", dtype_name(change.from), dtype_name(change.to));
      if (std::find(dtypes.begin(), dtypes.end(), step) == dtypes.end()) dtypes.push_back(step);
    }
    ++n_tensors;
    elements += change.elements;
    bytes_before += change.bytes_before;
    bytes_after += change.bytes_after;
    error += change.error;
    worst = std::max(worst, change.error.relative_rms());
  }
};

/// `name` with the number of its block replaced by a star.
std::string without_block(const std::string& name) {
  constexpr std::string_view kBlocks = ".blocks.";
  const std::size_t at = name.find(kBlocks);
  if (at == std::string::npos) return name;
  const std::size_t begin = at + kBlocks.size();
  return name.substr(0, begin) + "*" + name.substr(std::min(name.find('.', begin), name.size()));
}

std::vector<Line> changed_tensors(std::span<const TensorChange> changes, bool full) {
  std::vector<Line> lines;
  for (const TensorChange& change : changes) {
    if (change.from == change.to) continue;
    const std::string name = full ? change.name : without_block(change.name);
    auto line = std::find_if(lines.begin(), lines.end(), [&](const Line& l) { return l.name == name; });
    if (line == lines.end()) line = lines.insert(line, Line{.name = name, .dtypes = {}, .error = {}});
    line->add(change);
  }
  return lines;
}

/// The kinds that the model has.
std::vector<Line> by_kind(std::span<const TensorChange> changes) {
  std::array<Line, kLayerKinds> all;
  for (const TensorChange& change : changes) all[static_cast<std::size_t>(change.kind)].add(change);
  std::vector<Line> lines;
  for (std::size_t k = 0; k < kLayerKinds; ++k) {
    all[k].name = layer_kind_name(static_cast<LayerKind>(k));
    if (all[k].n_tensors > 0) lines.push_back(all[k]);
  }
  return lines;
}

Line total(std::span<const TensorChange> changes) {
  Line all{.name = "all", .dtypes = {}, .error = {}};
  for (const TensorChange& change : changes) all.add(change);
  return all;
}

std::string as_table(const char* title, const std::vector<Line>& lines) {
  Table table({{title, Table::Align::kLeft},
               {"tensors"},
               {"dtype", Table::Align::kLeft},
               {"MB before"},
               {"MB after"},
               {"relative RMS error"},
               {"worst tensor"},
               {"largest error"}});
  const auto mega = [](std::uint64_t bytes) {
    return fmt::format("{:.3f}", static_cast<double>(bytes) / 1e6);
  };
  for (const Line& line : lines) {
    const bool changed = !line.dtypes.empty();
    const auto figure = [&](double value) { return changed ? fmt::format("{:.3g}", value) : "-"; };
    table.add_row({line.name, std::to_string(line.n_tensors),
                   changed ? fmt::format("{}", fmt::join(line.dtypes, ", ")) : "kept",
                   mega(line.bytes_before), mega(line.bytes_after), figure(line.error.relative_rms()),
                   figure(line.worst), figure(line.error.largest)});
  }
  return table.markdown();
}

using Json = nlohmann::ordered_json;

Json figures(const RoundingError& error, std::uint64_t elements, std::uint64_t before, std::uint64_t after) {
  return {{"parameters", elements},
          {"bytes_before", before},
          {"bytes_after", after},
          {"relative_rms_error", error.relative_rms()},
          {"largest_error", error.largest}};
}

Json as_json(const Line& line) {
  Json json = {{"tensors", line.n_tensors}};
  json.update(figures(line.error, line.elements, line.bytes_before, line.bytes_after));
  return json;
}

}  // namespace

std::string quantize_text(std::span<const TensorChange> changes, bool full) {
  std::vector<Line> kinds = by_kind(changes);
  kinds.push_back(total(changes));
  const std::vector<Line> tensors = changed_tensors(changes, full);
  const std::string first = tensors.empty() ? "" : as_table("tensor", tensors) + "\n";
  return first + as_table("kind of layer", kinds);
}

std::string quantize_json(std::span<const TensorChange> changes) {
  Json tensors = Json::array();
  for (const TensorChange& change : changes) {
    Json json = {{"name", change.name},
                 {"kind", layer_kind_name(change.kind)},
                 {"from", dtype_name(change.from)},
                 {"to", dtype_name(change.to)}};
    json.update(figures(change.error, change.elements, change.bytes_before, change.bytes_after));
    tensors.push_back(std::move(json));
  }
  Json kinds = Json::object();
  for (const Line& line : by_kind(changes)) kinds[line.name] = as_json(line);
  const Json report = {{"total", as_json(total(changes))}, {"kinds", kinds}, {"tensors", tensors}};
  return json_text(report);
}

}  // namespace terrace::tools
