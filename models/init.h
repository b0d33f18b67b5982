// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "engine/progress.h"
#include "engine/tensor.h"
#include "models/config.h"
#include "models/weight_dtypes.h"

namespace terrace {

struct InitOptions {
  WeightDTypes dtype = DType::kF32;  ///< of the weights, where their shape allows it (stored_dtype)
  std::uint64_t seed = 0;
  unsigned n_threads = 1;
  std::string name;                              ///< `name` of the metadata; empty = none
  std::string tokenizer = R"({"kind":"none"})";  ///< the metadata of docs/model-file.md
  std::span<const std::byte> tokenizer_data;     ///< the tokenizer's own file, for kinds that have one
  ByteProgress progress;                         ///< false stops: Error{kCancelled}, no file
};

/// Writes a model file of `config` with random weights to `path`: for work on speed, and as a start for
/// training. The same configuration, seed and dtype give the same file, with any number of threads; the same
/// seed gives the same weights in every dtype up to its rounding. The weights are scaled so that activations
/// stay of size 1 at any depth (InitialValue in tensor_plan.h) and the logits of controllers and of the
/// output spread like a standard normal.
///
/// The file is streamed to the disk: memory stays below 64 MB for a model of any size. Speed:
/// docs/performance.md. Throws Error{kBadConfig} for a configuration that describes no model,
/// Error{kBadArgument} for a tokenizer with more ids than the vocabulary, Error{kBadFile} for one that cannot
/// be read, Error{kIo} when the file cannot be written, Error{kCancelled}; the target is unchanged then.
void init_model(const ModelConfig& config, const std::string& path, const InitOptions& options = {});

}  // namespace terrace
