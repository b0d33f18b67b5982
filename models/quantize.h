// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/progress.h"
#include "engine/tensor.h"
#include "engine/weight_file.h"
#include "models/tensor_plan.h"
#include "models/weight_dtypes.h"

namespace terrace {

/// How far stored values v' are from the given ones v.
struct RoundingError {
  double squares = 0;         ///< sum of v^2
  double squared_errors = 0;  ///< sum of (v' - v)^2
  float largest = 0;          ///< largest |v' - v|

  RoundingError& operator+=(const RoundingError& other) noexcept;
  /// sqrt(squared_errors / squares): the root mean square of the error over that of the values; 0 where all
  /// values are 0.
  double relative_rms() const noexcept;
};

/// What quantize_model did to one tensor.
struct TensorChange {
  std::string name;
  LayerKind kind = LayerKind::kOther;
  DType from = DType::kF32;
  DType to = DType::kF32;
  std::uint64_t elements = 0;
  std::uint64_t bytes_before = 0;  ///< with scales
  std::uint64_t bytes_after = 0;   ///< with scales
  RoundingError error;             ///< against the values in the input; nothing where from == to
};

struct QuantizeOptions {
  WeightDTypes dtype = DType::kQ8;  ///< of the weights, where their shape allows it (stored_dtype)
  unsigned n_threads = 1;
  ByteProgress progress;  ///< false stops: Error{kCancelled}, no file
};

/// Writes the model of `in` with its weights in other dtypes to `path`; biases, norms and everything else
/// that is always f32 are copied, and so are tokenizer and metadata. Weights that already have the dtype keep
/// their bytes. Rounding is to nearest, row by row (engine/quantize.h); no text is needed. `path` may be the
/// name of `in`. Returns what became of every tensor of the model, in file order; file and figures do not
/// depend on the number of threads.
///
/// The file is streamed: memory stays below 64 MB for a model of any size. Throws Error{kBadFile} for a
/// tensor that the configuration does not know, one that does not have its checksum or holds a value that is
/// not finite, Error{kIo}, Error{kCancelled};
/// the target is unchanged then.
std::vector<TensorChange> quantize_model(const WeightFile& in, const std::string& path,
                                         const QuantizeOptions& options);

}  // namespace terrace
