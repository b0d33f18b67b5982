// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

#include "models/quantize.h"

namespace terrace::tools {

/// Two tables: the tensors whose dtype changed, and all tensors by kind of layer. Tensors that differ only in
/// the number of their block share a line with their common error and the largest one; `full` gives each a
/// line of its own.
std::string quantize_text(std::span<const TensorChange> changes, bool full);

/// {"total": {...}, "kinds": {name: {...}}, "tensors": [...]}, every tensor of the model on its own.
std::string quantize_json(std::span<const TensorChange> changes);

}  // namespace terrace::tools
