// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmark/svg_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string_view>

#include "models/utf8.h"

namespace terrace::tools {
namespace {

// Okabe and Ito's palette, which colour-blind readers tell apart; yellow, too pale for lines, is left out.
constexpr std::array<std::string_view, 7> kColours{"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                                   "#56B4E9", "#E69F00", "#000000"};
constexpr std::string_view kInk = "#222222";
constexpr std::string_view kGrid = "#dddddd";
constexpr double kFont = 13;
constexpr double kCharacter = 0.6 * kFont;  // about what one takes

/// XML has no way to write most control characters; they become U+FFFD, as do bytes that are no UTF-8.
std::string escaped(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text.substr(at));
    const char32_t c = step.code_point;
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if ((c < 0x20 && c != '\t' && c != '\n') || c == 0xFFFE || c == 0xFFFF) {
      out += kReplacementCharacter;
    } else {
      append_utf8(c, out);
    }
    at += step.length;
  }
  return out;
}

/// Collects shapes; coordinates in pixels, y downwards.
class Drawing {
 public:
  Drawing(double width, double height, std::string_view title)
      : text_(fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
                          "width=\"{0:.0f}\" height=\"{1:.0f}\" font-family=\"sans-serif\" font-size=\"{2}\" "
                          "fill=\"{3}\">\n<title>{4}</title>\n"
                          "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
                          width, height, kFont, kInk, escaped(title))) {
    text(width / 2, 24, "middle", title, R"(font-size="16" font-weight="bold")");
  }

  void line(double x1, double y1, double x2, double y2, std::string_view colour, std::string_view more = {}) {
    text_ += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" {}/>\n",
                         x1, y1, x2, y2, colour, more);
  }
  void rectangle(double x, double y, double width, double height, std::string_view colour) {
    text_ += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"/>\n",
                         x, y, width, height, colour);
  }
  void text(double x, double y, std::string_view anchor, std::string_view words, std::string_view more = {}) {
    text_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" {}>{}</text>\n", x, y, anchor,
                         more, escaped(words));
  }
  void curve(const std::vector<std::pair<double, double>>& points, std::string_view colour) {
    std::string list;
    for (const auto& [x, y] : points) list += fmt::format("{:.1f},{:.1f} ", x, y);
    text_ += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n", list,
                         colour);
    for (const auto& [x, y] : points) {
      text_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" fill=\"{}\"/>\n", x, y, colour);
    }
  }

  std::string finish() && { return std::move(text_) + "</svg>\n"; }

 private:
  std::string text_;
};

/// Round numbers from 0 to at least `most`, four to nine of them.
std::vector<double> round_ticks(double most) {
  if (!(most > 0)) most = 1;
  const double magnitude = std::pow(10, std::floor(std::log10(most)));
  double step = magnitude;
  for (const double fraction : {0.2, 0.5, 1.0}) {
    step = fraction * magnitude;
    if (most / step <= 8) break;
  }
  std::vector<double> ticks;
  for (int i = 0; ticks.empty() || ticks.back() < most; ++i) ticks.push_back(i * step);
  return ticks;
}

std::string number(double value) { return fmt::format("{:.6g}", value); }

/// The frame of a line chart: where its points lie, and what is around them.
class LineFrame {
 public:
  static constexpr double kLeft = 75;
  static constexpr double kTop = 45;
  static constexpr double kWidth = 520;
  static constexpr double kHeight = 300;
  static constexpr double kLegend = kLeft + kWidth + 20;

  explicit LineFrame(const LineChart& chart) : log_x_(chart.log_x) {
    double most_y = 0;
    std::set<double> xs;
    for (const auto& series : chart.series) {
      for (const auto& [x, y] : series.points) {
        xs.insert(x);
        most_y = std::max(most_y, y);
      }
    }
    for (const auto& level : chart.levels) most_y = std::max(most_y, level.y);
    y_ticks_ = round_ticks(most_y);
    const double last_x = xs.empty() ? 1 : *xs.rbegin();
    x_ticks_ = log_x_ ? std::vector<double>(xs.begin(), xs.end()) : round_ticks(last_x);
  }

  double place_x(double x) const {
    const double first = log_x_ ? x_ticks_.front() : 0;
    const double span = log_x_ ? std::log(x_ticks_.back() / first) : x_ticks_.back();
    const double share = span > 0 ? (log_x_ ? std::log(x / first) : x) / span : 0.5;
    // On a logarithmic axis the outermost points keep off the frame.
    return kLeft + kWidth * (log_x_ ? 0.05 + 0.9 * share : share);
  }
  double place_y(double y) const { return kTop + kHeight * (1 - y / y_ticks_.back()); }

  void draw(const LineChart& chart, Drawing& drawing) const {
    for (const double y : y_ticks_) {
      drawing.line(kLeft, place_y(y), kLeft + kWidth, place_y(y), kGrid);
      drawing.text(kLeft - 8, place_y(y) + kFont / 3, "end", number(y));
    }
    for (const double x : x_ticks_) {
      drawing.line(place_x(x), kTop + kHeight, place_x(x), kTop + kHeight + 5, kInk);
      drawing.text(place_x(x), kTop + kHeight + 20, "middle", number(x));
    }
    drawing.line(kLeft, kTop, kLeft, kTop + kHeight, kInk);
    drawing.line(kLeft, kTop + kHeight, kLeft + kWidth, kTop + kHeight, kInk);
    drawing.text(kLeft + kWidth / 2, kTop + kHeight + 45, "middle", chart.x_label);
    drawing.text(0, 0, "middle", chart.y_label,
                 fmt::format("transform=\"translate(20 {:.1f}) rotate(-90)\"", kTop + kHeight / 2));
  }

 private:
  bool log_x_;
  std::vector<double> x_ticks_, y_ticks_;
};

}  // namespace

std::string svg(const LineChart& chart) {
  std::size_t longest = 0;
  for (const auto& series : chart.series) longest = std::max(longest, series.name.size());
  for (const auto& level : chart.levels) longest = std::max(longest, level.name.size());
  using Frame = LineFrame;
  const Frame frame(chart);
  Drawing drawing(Frame::kLegend + 40 + kCharacter * static_cast<double>(longest),
                  Frame::kTop + Frame::kHeight + 60, chart.title);
  frame.draw(chart, drawing);

  double legend_y = Frame::kTop + 10;
  const auto add_legend = [&](const std::string& name, std::string_view colour, std::string_view style) {
    drawing.line(Frame::kLegend, legend_y, Frame::kLegend + 24, legend_y, colour, style);
    drawing.text(Frame::kLegend + 30, legend_y + kFont / 3, "start", name);
    legend_y += 20;
  };
  std::size_t next = 0;
  const auto colour = [&] { return kColours[next++ % kColours.size()]; };
  for (const auto& series : chart.series) {
    const auto c = colour();
    std::vector<std::pair<double, double>> points;
    for (const auto& [x, y] : series.points) points.emplace_back(frame.place_x(x), frame.place_y(y));
    drawing.curve(points, c);
    add_legend(series.name, c, "stroke-width=\"2\"");
  }
  constexpr std::string_view kDashed = R"(stroke-width="2" stroke-dasharray="6 4")";
  for (const auto& level : chart.levels) {
    const auto c = colour();
    const double y = frame.place_y(level.y);
    drawing.line(Frame::kLeft, y, Frame::kLeft + Frame::kWidth, y, c, kDashed);
    add_legend(level.name, c, kDashed);
  }
  return std::move(drawing).finish();
}

std::string svg(const BarChart& chart) {
  double most = 0;
  std::size_t longest_name = 0;
  std::size_t longest_label = 0;
  for (const auto& bar : chart.bars) {
    most = std::max({most, bar.value, bar.mark.value_or(0)});
    longest_name = std::max(longest_name, bar.name.size());
    longest_label = std::max(longest_label, bar.label.size());
  }
  const auto ticks = round_ticks(most);
  const double left = 25 + kCharacter * static_cast<double>(longest_name);
  constexpr double kTop = 45;
  constexpr double kWidth = 480;
  constexpr double kPitch = 34;
  constexpr double kBar = 22;
  const double height = kPitch * static_cast<double>(chart.bars.size());
  const auto place_x = [&](double x) { return left + kWidth * x / ticks.back(); };

  Drawing drawing(left + kWidth + 30 + kCharacter * static_cast<double>(longest_label), kTop + height + 60,
                  chart.title);
  for (const double x : ticks) {
    drawing.line(place_x(x), kTop, place_x(x), kTop + height, kGrid);
    drawing.text(place_x(x), kTop + height + 18, "middle", number(x));
  }
  const auto mark = [&](double x, double top) {
    drawing.line(x, top, x, top + kBar + 4, kColours[1], "stroke-width=\"3\"");
  };
  double y = kTop + (kPitch - kBar) / 2;
  for (const auto& bar : chart.bars) {
    drawing.text(left - 8, y + kBar / 2 + kFont / 3, "end", bar.name);
    drawing.rectangle(left, y, place_x(bar.value) - left, kBar, kColours[0]);
    if (bar.mark) mark(place_x(*bar.mark), y - 2);
    drawing.text(place_x(std::max(bar.value, bar.mark.value_or(0))) + 8, y + kBar / 2 + kFont / 3, "start",
                 bar.label);
    y += kPitch;
  }
  drawing.line(left, kTop, left, kTop + height, kInk);
  drawing.text(left + kWidth / 2, kTop + height + 42, "middle", chart.x_label);
  if (!chart.mark_name.empty()) {
    mark(25, kTop + height + 25);
    drawing.text(33, kTop + height + 42, "start", chart.mark_name);
  }
  return std::move(drawing).finish();
}

}  // namespace terrace::tools
