// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace terrace::tools {

/// Values against a quantity. Coordinates are finite; y starts at zero.
struct LineChart {
  struct Series {
    std::string name;
    std::vector<std::pair<double, double>> points;  ///< (x, y), x ascending
  };
  struct Level {
    std::string name;
    double y = 0;
  };
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log_x = false;  ///< all x > 0; ticks stand at the points
  std::vector<Series> series;
  std::vector<Level> levels;  ///< dashed lines across the chart
};

/// Named values side by side, from zero.
struct BarChart {
  struct Bar {
    std::string name;
    double value = 0;
    std::string label;           ///< at the end of the bar
    std::optional<double> mark;  ///< a tick across the bar
  };
  std::string title;
  std::string x_label;
  std::string mark_name;  ///< what the marks are; empty = none
  std::vector<Bar> bars;
};

/// Self-contained SVG documents: no scripts, no style sheets, a font that every viewer has.
std::string svg(const LineChart& chart);
std::string svg(const BarChart& chart);

}  // namespace terrace::tools
