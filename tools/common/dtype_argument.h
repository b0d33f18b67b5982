// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "engine/tensor.h"
#include "models/weight_dtypes.h"

namespace terrace::tools {

/// What --dtype takes.
inline const std::vector<std::string>& dtype_names() {
  static const std::vector<std::string> names = {"f32", "bf16", "q8", "q4"};
  return names;
}

/// `name` is one of dtype_names().
inline DType parse_dtype(const std::string& name) {
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kQ8}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  return DType::kQ4;
}

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
