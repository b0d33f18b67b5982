// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>

#include "bench/command_line.h"

namespace terrace::bench {

/// oneDNN's OpenMP threads would go on spinning after a call and take the cores of what is measured next, and
/// be as many as there are CPUs instead of `n_threads`. The OpenMP runtime reads its settings before main(),
/// so a program that was started with others starts itself once more. A wait policy that the caller chose
/// stays.
inline void quiet_openmp(const CommandLine& line, unsigned n_threads) {
  const std::string threads = std::to_string(n_threads);
  const char* const set_threads = std::getenv("OMP_NUM_THREADS");
  if (std::getenv("OMP_WAIT_POLICY") && set_threads && set_threads == threads) return;
  ::setenv("OMP_WAIT_POLICY", "passive", /*overwrite=*/0);
  ::setenv("OMP_NUM_THREADS", threads.c_str(), 1);
  ::execv("/proc/self/exe", line.argv());
  throw std::system_error(errno, std::generic_category(), "cannot start the program with OpenMP's settings");
}

}  // namespace terrace::bench
