// SPDX-License-Identifier: Apache-2.0
#include "tools/common/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "tools/common/output.h"

namespace terrace::tools {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr std::size_t kBarWidth = 24;
/// Returns to the first column and erases the line (ECMA-48 EL).
constexpr const char* kClearLine = "\r\x1b[K";

std::size_t terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string format_duration(double seconds) {
  const auto whole = static_cast<std::uint64_t>(std::lround(std::min(seconds, 359999.0)));
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

void draw(std::string line) {
  line.resize(std::min(line.size(), terminal_columns() - 1));  // a wrapped line could not be erased
  write_stderr(kClearLine + line);
}

}  // namespace

Progress::Progress(std::string label, std::uint64_t total, std::string unit)
    : label_(std::move(label)),
      total_(total),
      unit_(std::move(unit)),
      start_(Clock::now()),
      drawn_(start_ - kRedraw),
      visible_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (visible_) write_stderr(kClearLine);
}

void Progress::update(std::uint64_t done) {
  if (!visible_) return;
  const auto now = Clock::now();
  if (now - drawn_ < kRedraw && done < total_) return;
  drawn_ = now;

  const double seconds = std::chrono::duration<double>(now - start_).count();
  if (total_ == kUnknown) return draw(fmt::format("{}, {}", label_, format_duration(seconds)));
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  const double fraction =
      total_ > 0 ? std::min(1.0, static_cast<double>(done) / static_cast<double>(total_)) : 1;
  const auto filled = static_cast<std::size_t>(fraction * kBarWidth);
  std::string line = fmt::format("{} [{}{}] {}/{} {}, {:.1f}/s", label_, std::string(filled, '#'),
                                 std::string(kBarWidth - filled, '.'), done, total_, unit_, rate);
  if (done > 0 && done < total_) {
    line += fmt::format(", {} left", format_duration(static_cast<double>(total_ - done) / rate));
  }
  draw(std::move(line));
}

}  // namespace terrace::tools
