// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/mapped_file.h"
#include "engine/tensor.h"
#include "engine/weight_plan.h"

namespace terrace {

/// A model file (docs/model-file.md), mapped and checked; read-only and immutable, so threads may share it.
///
/// Opening reads only the header and checks every rule of the format (WeightPlan) before it trusts anything,
/// so an object of this class never hands out a view past the end of the file. It does not read the weights:
/// see verify.h.
///
/// Memory is proportional to the header's length. All errors are Error{kBadFile} beginning with the file's
/// name, except where MappedFile::open says otherwise.
class WeightFile {
 public:
  /// Maps and checks the file; the cost does not depend on the size of the weights.
  static WeightFile open(const std::string& path);

  /// Checks a file that is already in memory at a multiple of kTensorAlignment and outlives the object;
  /// `label` stands for its name in messages. Throws Error{kBadArgument} for memory at another address.
  static WeightFile parse(std::span<const std::byte> file, std::string label);

  const std::string& label() const noexcept { return label_; }
  std::uint64_t file_bytes() const noexcept { return file_.size(); }

  /// All tensors in file order, without the paddings.
  std::span<const TensorInfo> tensors() const noexcept { return plan_.tensors(); }
  /// The `pad.<n>` tensors in file order.
  std::span<const TensorInfo> paddings() const noexcept { return plan_.paddings(); }

  /// nullptr where there is no tensor of that name.
  const TensorInfo* find(std::string_view name) const noexcept { return plan_.find(name); }
  /// As find; throws Error{kBadFile} where there is none.
  const TensorInfo& get(std::string_view name) const;

  /// The stored bytes of a tensor (or padding) of this file; aligned to kTensorAlignment.
  std::span<const std::byte> data(const TensorInfo& tensor) const noexcept {
    return file_.subspan(tensor.offset, tensor.bytes);
  }

  /// The weight `name` with its scale as a matrix: the last axis is a row, all others are counted as rows; a
  /// scalar is one row of one column. Throws Error{kBadFile} where it is missing, Error{kUnsupported} for a
  /// type without kernels.
  WeightView weight(std::string_view name) const;
  /// The elements of an F32 tensor. Throws Error{kBadFile} where it is missing or has another type.
  std::span<const float> f32(std::string_view name) const;

  /// Value of a `__metadata__` key; nullptr where it is absent.
  const std::string* metadata(std::string_view key) const noexcept { return plan_.metadata(key); }
  const std::map<std::string, std::string, std::less<>>& metadata() const noexcept {
    return plan_.metadata();
  }

  /// The mapping behind the file, for paging hints; nullptr for a file from parse().
  const MappedFile* mapping() const noexcept { return mapping_ ? &*mapping_ : nullptr; }

 private:
  WeightFile(std::string label, std::optional<MappedFile> mapping, std::span<const std::byte> file);

  std::string label_;
  std::optional<MappedFile> mapping_;
  std::span<const std::byte> file_;
  WeightPlan plan_;
};

}  // namespace terrace
