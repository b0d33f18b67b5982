// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace terrace::tools {

/// A progress bar on stderr: done, total, rate and time left, redrawn at most ten times a second.
/// Silent when stderr is not a terminal.
class Progress {
 public:
  /// `total`, if it is known: else only the time that has passed is drawn.
  static constexpr std::uint64_t kUnknown = ~std::uint64_t{0};

  /// `unit` is what is counted ("tokens", "MB").
  Progress(std::string label, std::uint64_t total, std::string unit);
  /// Clears the line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` of `total` units are finished.
  void update(std::uint64_t done);

 private:
  using Clock = std::chrono::steady_clock;

  std::string label_;
  std::uint64_t total_;
  std::string unit_;
  Clock::time_point start_;
  Clock::time_point drawn_;
  bool visible_;
};

}  // namespace terrace::tools
