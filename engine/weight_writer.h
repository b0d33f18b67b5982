// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/atomic_file.h"
#include "engine/checksum.h"
#include "engine/tensor.h"
#include "engine/weight_header.h"
#include "engine/weight_plan.h"

namespace terrace {

/// A tensor to be written.
struct TensorSpec {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<std::uint64_t> shape;  ///< as stored
};

/// The stored tensors of one weight of logical `shape`: the weight itself and, for q8 and q4, its scale.
/// Throws Error{kBadArgument} for a quantised scalar and for a q4 row that is no multiple of kQ4Columns.
std::vector<TensorSpec> weight_specs(const std::string& name, DType dtype, std::vector<std::uint64_t> shape);

/// Writes a model file (docs/model-file.md) as a stream: the tensors are declared first, which fixes every
/// offset, and then their bytes arrive in pieces of any size. Memory stays at a few hundred bytes per tensor.
///
/// The header is written last, because it holds the checksums; their text has a fixed width, so its size is
/// known from the start. Until `commit` the target's name is untouched (AtomicFile); an object that is
/// destroyed before leaves nothing behind.
class WeightWriter {
 public:
  /// Lays out the file, in the order given, with paddings where they are needed, and reserves its space.
  /// `metadata` are the `__metadata__` entries; format, version and checksums are added. Throws
  /// Error{kBadArgument} when the result would break a rule of the format, Error{kIo} when the file cannot be
  /// made.
  WeightWriter(const std::string& path, const std::vector<TensorSpec>& tensors,
               const std::map<std::string, std::string>& metadata);

  /// Appends `bytes` to tensor `name`. Tensors may be filled in any order and alternately. Throws
  /// Error{kBadArgument} for an unknown name and for more bytes than the tensor has, Error{kIo} for a failed
  /// write.
  void write(std::string_view name, std::span<const std::byte> bytes);

  /// Writes the header and gives the file its name. Throws Error{kBadArgument} when a tensor is incomplete,
  /// or Error{kIo}; the target is then unchanged.
  void commit();

  /// Size of the whole file.
  std::uint64_t file_bytes() const noexcept { return file_bytes_; }
  /// Bytes of all tensors, without paddings.
  std::uint64_t tensor_bytes() const noexcept;

 private:
  struct Progress {
    std::uint64_t written = 0;
    Checksum checksum;
  };

  WeightHeader header_;
  std::uint64_t file_bytes_ = 0;
  std::optional<WeightPlan> plan_;
  std::vector<Progress> progress_;  ///< parallel to plan_->tensors()
  std::optional<AtomicFile> file_;
};

}  // namespace terrace
