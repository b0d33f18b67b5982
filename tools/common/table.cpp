// SPDX-License-Identifier: Apache-2.0
#include "tools/common/table.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/error.h"

namespace terrace::tools {
namespace {

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

}  // namespace

void Table::add_row(std::vector<std::string> cells) {
  TERRACE_DCHECK(cells.size() == columns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::markdown() const {
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    std::size_t width = std::max<std::size_t>(3, columns_[c].title.size());
    for (const auto& row : rows_) width = std::max(width, row[c].size());
    widths.push_back(width);
  }
  const auto pad = [&](const std::string& text, std::size_t c) {
    return columns_[c].align == Align::kLeft ? fmt::format("{:<{}}", text, widths[c])
                                             : fmt::format("{:>{}}", text, widths[c]);
  };
  std::string head = "|";
  std::string rule = "|";
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    head += " " + pad(columns_[c].title, c) + " |";
    const std::string dashes(widths[c], '-');
    rule += columns_[c].align == Align::kLeft ? ' ' + dashes + " |" : ' ' + dashes + ":|";
  }
  std::string text = head + "\n" + rule + "\n";
  for (const auto& row : rows_) {
    text += "|";
    for (std::size_t c = 0; c < row.size(); ++c) text += " " + pad(row[c], c) + " |";
    text += "\n";
  }
  return text;
}

std::string Table::csv() const {
  std::string text;
  for (std::size_t c = 0; c < columns_.size(); ++c) text += (c ? "," : "") + csv_cell(columns_[c].title);
  text += "\n";
  for (const auto& row : rows_) {
    for (std::size_t c = 0; c < row.size(); ++c) text += (c ? "," : "") + csv_cell(row[c]);
    text += "\n";
  }
  return text;
}

}  // namespace terrace::tools
