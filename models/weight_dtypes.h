// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "engine/tensor.h"
#include "models/tensor_plan.h"

namespace terrace {

/// How the weights of a model are to be stored: all in one dtype, or some kinds of layer in another.
class WeightDTypes {
 public:
  WeightDTypes(DType all = DType::kF32) noexcept { by_kind_.fill(all); }  // NOLINT: one dtype is the rule

  /// Throws Error{kBadArgument} for a kind that has no weights (kNorm).
  void set(LayerKind kind, DType dtype);
  DType of(LayerKind kind) const noexcept { return by_kind_[static_cast<std::size_t>(kind)]; }

 private:
  std::array<DType, kLayerKinds> by_kind_;
};

}  // namespace terrace
