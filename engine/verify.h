// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/progress.h"
#include "engine/weight_file.h"

namespace terrace {

/// Something wrong with the contents of one tensor.
struct VerifyProblem {
  std::string tensor;
  std::string message;
};

struct VerifyReport {
  std::uint64_t n_tensors = 0;
  std::uint64_t n_bytes = 0;
  std::vector<VerifyProblem> problems;  ///< in file order; empty = sound
};

/// Reads a model file from end to end and reports, tensor by tensor: a missing or wrong checksum; values that
/// are NaN or infinite (f32, bf16, scales of either); int8 weights of -128, which the format excludes;
/// paddings that are not zero. The plan of the file was checked when the file was opened.
///
/// Cost: one pass over the file at the speed of the disk; memory does not grow with the file. Throws
/// Error{kCancelled} when `progress` says so, Error{kBadFile} when the file has been cut short since it was
/// opened.
VerifyReport verify(const WeightFile& file, const ByteProgress& progress = {});

/// Throws Error{kBadFile}, naming tensor and element, for a scale of a quantised weight that is NaN or
/// infinite. Layers may swallow such a value without a trace (a rectifier turns NaN into 0), so programs
/// check before they run a file of unknown origin. Reads all scales, 4 bytes per row of q8 and 1/8 of the
/// bytes of q4, or nothing if they are more than `limit_bytes` in all.
void check_scales(const WeightFile& file, std::uint64_t limit_bytes);

}  // namespace terrace
