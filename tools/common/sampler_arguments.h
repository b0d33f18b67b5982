// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>

#include "models/sampler.h"

namespace terrace::tools {

/// How the next token is drawn: --temp and its kin.
struct SamplerArguments {
  static constexpr std::int64_t kNewSeed = -1;

  SamplerConfig config;
  std::int64_t seed = kNewSeed;  ///< as given

  void add(CLI::App& command);
  /// config.seed becomes the seed that was given, or a new one.
  void draw_seed();
};

}  // namespace terrace::tools
