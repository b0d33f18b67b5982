// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "engine/tensor.h"
#include "models/config.h"
#include "models/model.h"

namespace terrace::bench {

/// The path of a new, empty file in the folder for temporary files, whose name starts with `name`. Throws
/// Error{kIo}.
std::string temporary_file(const std::string& name);

/// A model with random weights; its file has no name any more. Throws Error.
std::shared_ptr<const Model> random_model(const ModelConfig& config, DType dtype);

/// Ids `first`, `first` + 1, ... of a sequence in which every token picks other rows.
std::vector<TokenId> random_tokens(const Model& model, std::size_t first, std::size_t n);

}  // namespace terrace::bench
