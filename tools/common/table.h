// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace terrace::tools {

/// A table of text cells.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kRight;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  /// `cells`: one per column.
  void add_row(std::vector<std::string> cells);

  /// GitHub Markdown with padded cells, which a terminal shows as a table too.
  std::string markdown() const;
  /// RFC 4180 with a line of titles; lines end in "\n".
  std::string csv() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace terrace::tools
