// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "engine/tensor.h"
#include "engine/weight_file.h"

namespace terrace {

/// Turns tensor names of a model file into checked views while a model is built. Every request states the
/// shape that the configuration demands; a missing tensor or another shape is Error{kBadFile} with name,
/// expected and found. finish() then refuses tensors that nobody asked for, so a wrong configuration cannot
/// load by accident.
class WeightBinder {
 public:
  using Shape = std::initializer_list<std::size_t>;

  /// `file` must outlive the views. `rows_on_demand`: as Model::LoadOptions has it.
  explicit WeightBinder(const WeightFile& file, bool rows_on_demand = false)
      : file_(file), rows_on_demand_(rows_on_demand) {}

  bool rows_on_demand() const noexcept { return rows_on_demand_; }

  bool has(std::string_view name) const { return file_.find(name) != nullptr; }

  /// A weight of any dtype; all axes but the last count as rows.
  WeightView weight(const std::string& name, Shape shape);

  /// A weight of which a token reads only a few rows. If rows are fetched on demand, tells the system so.
  WeightView gathered_weight(const std::string& name, Shape shape);

  /// An f32 tensor.
  const float* f32(const std::string& name, Shape shape);

  /// An f32 tensor, or nullptr where the file has none.
  const float* f32_if_present(const std::string& name, Shape shape);

  /// The shape of a tensor, for sizes that only the file knows (LSH rotations).
  std::span<const std::uint64_t> shape_of(const std::string& name) const;

  /// Marks a tensor as known although no layer reads it through this class (tokenizer data).
  void ignore(const std::string& name) { used_.insert(name); }

  /// Throws Error{kBadFile} naming the first tensor that no layer used.
  void finish() const;

 private:
  const TensorInfo& check_shape(const std::string& name, Shape shape);

  const WeightFile& file_;
  bool rows_on_demand_;
  std::set<std::string, std::less<>> used_;
};

}  // namespace terrace
