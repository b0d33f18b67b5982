// SPDX-License-Identifier: Apache-2.0
#include "models/weight_dtypes.h"

#include "engine/error.h"

namespace terrace {

void WeightDTypes::set(LayerKind kind, DType dtype) {
  TERRACE_CHECK(kind != LayerKind::kNorm, kBadArgument, "norms have no weights, they are f32 in every model");
  by_kind_[static_cast<std::size_t>(kind)] = dtype;
}

}  // namespace terrace
