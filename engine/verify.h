// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/checksum.h"
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
  // Tensors, however many problems each of them has:
  std::uint64_t n_damaged = 0;           ///< with another checksum or a bad element
  std::uint64_t n_without_checksum = 0;  ///< damage would go unnoticed
  std::uint64_t n_damaged_paddings = 0;
};

/// Reads a model file from end to end and reports, tensor by tensor: a missing or wrong checksum; values that
/// are NaN or infinite (f32, bf16, scales of either); scales that are denormal numbers; int8 weights of -128,
/// which the format excludes; paddings that are not zero. The plan of the file was checked when the file was
/// opened.
///
/// Cost: one pass over the file at the speed of the disk; memory does not grow with the file. Throws
/// Error{kCancelled} when `progress` says so, Error{kBadFile} when the file has been cut short since it was
/// opened.
VerifyReport verify(const WeightFile& file, const ByteProgress& progress = {});

/// Compares a tensor with its checksum while it is read in pieces; one without a checksum passes.
class TensorCheck {
 public:
  TensorCheck(const WeightFile& file, const TensorInfo& tensor) : file_(file), tensor_(tensor) {}

  void update(std::span<const std::byte> piece) noexcept { checksum_.update(piece); }
  /// After the last piece. Throws Error{kBadFile} that names the tensor.
  void finish() const;

 private:
  const WeightFile& file_;
  const TensorInfo& tensor_;
  Checksum checksum_;
};

/// Throws Error{kBadFile}, naming tensor and element, for a scale of a quantised weight that is NaN, infinite
/// or a denormal number. Layers may swallow such a value without a trace (a rectifier turns NaN into 0), so
/// programs check before they run a file of unknown origin. Reads all scales, 4 bytes per row of q8 and 1/8
/// of the bytes of q4, or nothing if they are more than `limit_bytes` in all.
void check_scales(const WeightFile& file, std::uint64_t limit_bytes);

}  // namespace terrace
