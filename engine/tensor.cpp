// SPDX-License-Identifier: Apache-2.0
#include "engine/tensor.h"

#include <string>

#include "engine/error.h"

namespace terrace {

DType parse_dtype(std::string_view name) {
  for (const DType dtype : kDTypes) {
    if (name == dtype_name(dtype)) return dtype;
  }
  throw Error(ErrorCode::kBadArgument,
              "type of weights: expected f32, bf16, q8 or q4, found '" + std::string(name) + "'");
}

}  // namespace terrace
