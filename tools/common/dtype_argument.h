// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "engine/tensor.h"
#include "models/weight_dtypes.h"

namespace terrace::tools {

/// What --dtype takes.
inline std::vector<std::string> dtype_names() {
  std::vector<std::string> names;
  for (const DType dtype : kDTypes) names.emplace_back(dtype_name(dtype));
  return names;
}

/// --dtype: one or several for the weights of a preset, with the default of `to`. Returns the option.
CLI::Option* add_preset_dtypes(CLI::App& command, std::vector<std::string>& to);

/// --dtype and --kind: how the weights of a file that is made are stored.
struct DTypeArguments {
  std::string dtype = "f32";
  std::vector<std::string> kinds;  ///< "KIND=TYPE"; the last one for a kind counts

  /// Returns --dtype.
  CLI::Option* add(CLI::App& command);
  /// Throws UsageError for an unknown kind or dtype.
  WeightDTypes weight_dtypes() const;
};

}  // namespace terrace::tools
