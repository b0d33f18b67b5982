// SPDX-License-Identifier: Apache-2.0
#include "models/weight_binder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "engine/error.h"
#include "engine/weight_plan.h"

namespace terrace {

const TensorInfo& WeightBinder::check_shape(const std::string& name, Shape shape) {
  const TensorInfo* tensor = file_.find(name);
  TERRACE_CHECK(tensor, kBadFile,
                fmt::format("{}: the configuration needs a tensor '{}' of shape [{}], and there is none",
                            file_.label(), name, fmt::join(shape, ", ")));
  used_.insert(name);
  return *tensor;
}

WeightView WeightBinder::weight(const std::string& name, Shape shape) {
  check_shape(name, shape);
  const std::string scale = name + std::string(kScaleSuffix);
  if (has(scale)) used_.insert(scale);
  const WeightView view = file_.weight(name);
  std::size_t rows = 1;
  for (const std::size_t* axis = shape.begin(); axis + 1 < shape.end(); ++axis) rows *= *axis;
  const std::size_t cols = *(shape.end() - 1);
  TERRACE_CHECK(view.rows == rows && view.cols == cols, kBadFile,
                fmt::format("{}: tensor '{}' must have shape [{}], found {} rows of {} columns",
                            file_.label(), name, fmt::join(shape, ", "), view.rows, view.cols));
  return view;
}

WeightView WeightBinder::gathered_weight(const std::string& name, Shape shape) {
  const WeightView view = weight(name, shape);
  if (rows_on_demand_ && file_.mapping() != nullptr) {
    const TensorInfo& tensor = file_.get(name);
    file_.mapping()->expect_scattered(tensor.offset, tensor.bytes);
  }
  return view;
}

const float* WeightBinder::f32(const std::string& name, Shape shape) {
  const TensorInfo& tensor = check_shape(name, shape);
  TERRACE_CHECK(std::equal(tensor.shape.begin(), tensor.shape.end(), shape.begin(), shape.end()), kBadFile,
                fmt::format("{}: tensor '{}' must have shape [{}], found [{}]", file_.label(), name,
                            fmt::join(shape, ", "), fmt::join(tensor.shape, ", ")));
  return file_.f32(name).data();
}

const float* WeightBinder::f32_if_present(const std::string& name, Shape shape) {
  return has(name) ? f32(name, shape) : nullptr;
}

std::span<const std::uint64_t> WeightBinder::shape_of(const std::string& name) const {
  return file_.get(name).shape;
}

void WeightBinder::finish() const {
  for (const TensorInfo& tensor : file_.tensors()) {
    TERRACE_CHECK(
        used_.contains(tensor.name), kBadFile,
        fmt::format("{}: tensor '{}' belongs to no layer of the configuration", file_.label(), tensor.name));
  }
}

}  // namespace terrace
