// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace terrace::tools {

/// What --dtype takes.
inline const std::vector<std::string>& dtype_names() {
  static const std::vector<std::string> names = {"f32", "bf16", "q8", "q4"};
  return names;
}

/// Adds --dtype with one value out of dtype_names().
inline CLI::Option* add_dtype(CLI::App& command, std::string& dtype) {
  return command.add_option("--dtype", dtype, "How weights are stored: f32, bf16, q8 or q4")
      ->check(CLI::IsMember(dtype_names()))
      ->capture_default_str()
      ->type_name("TYPE");
}

/// `name` is one of dtype_names().
inline DType parse_dtype(const std::string& name) {
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kQ8}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  return DType::kQ4;
}

}  // namespace terrace::tools
