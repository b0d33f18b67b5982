// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/progress.h"
#include "engine/tensor.h"
#include "models/model.h"
#include "models/tensor_plan.h"

namespace terrace {

struct QuantizeOptions {
  DType dtype = DType::kQ8;            ///< of all weights, where their shape allows it (stored_dtype)
  std::map<LayerKind, DType> by_kind;  ///< other dtypes for the weights of some layers
  unsigned n_threads = 1;
  ByteProgress progress;  ///< bytes read; false stops: Error{kCancelled}, no file
};

/// What one weight lost.
struct QuantizedTensor {
  std::string name;
  LayerKind kind = LayerKind::kOther;
  DType dtype = DType::kF32;
  std::uint64_t bytes = 0;    ///< in the new file, scales included
  double relative_error = 0;  ///< root of sum (w - stored)^2 / sum w^2
};

/// Writes `model` with its weights in other dtypes to `path`; configuration, tokenizer and all f32 tensors
/// are kept. Returns every weight (not the f32 vectors) in file order. The target is unchanged until all is
/// written. Throws Error{kBadFile} naming a tensor with values that are not finite, Error{kIo, kCancelled}.
std::vector<QuantizedTensor> quantize_model(const Model& model, const std::string& path,
                                            const QuantizeOptions& options);

}  // namespace terrace
