// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "engine/progress.h"
#include "engine/tensor.h"
#include "engine/weight_file.h"

namespace terrace {

struct QuantizeOptions {
  DType dtype = DType::kQ8;  ///< of the weights, where their shape allows it (stored_dtype)
  unsigned n_threads = 1;
  ByteProgress progress;  ///< false stops: Error{kCancelled}, no file
};

/// Writes the model of `in` with its weights in another dtype to `path`; biases, norms and everything else
/// that is f32 by rule are copied, and so are tokenizer and metadata. Weights that have the dtype already
/// keep their bytes. Rounding is to nearest, row by row (quantize.h): no data are needed. `path` may be the
/// name of `in`.
///
/// The file is streamed: memory stays below 64 MB for a model of any size. Throws Error{kBadFile} for a
/// tensor that the configuration does not know or a value that is not finite, Error{kIo}, Error{kCancelled};
/// the target is unchanged then.
void quantize_model(const WeightFile& in, const std::string& path, const QuantizeOptions& options);

}  // namespace terrace
