// SPDX-License-Identifier: Apache-2.0
#include "engine/weight_file.h"

#include <utility>

#include "engine/checked.h"
#include "engine/error.h"

namespace terrace {
namespace {

std::string where(std::string_view name) { return "tensor '" + std::string(name) + "'"; }

/// Length of the JSON text: everything between the length field and the first tensor.
std::uint64_t header_length(std::span<const std::byte> file) {
  const auto length = checked_read_le<std::uint64_t>(file, "length of the header");
  if (length > kMaxHeaderBytes) {
    throw Error(ErrorCode::kBadFile, "header: length " + std::to_string(length) + " exceeds the limit of " +
                                         std::to_string(kMaxHeaderBytes) + " bytes");
  }
  if (length > file.size() - kHeaderLengthBytes) {
    throw Error(ErrorCode::kBadFile, "header: length " + std::to_string(length) +
                                         " does not fit into a file of " + std::to_string(file.size()) +
                                         " bytes (cut short, or no model file)");
  }
  if ((kHeaderLengthBytes + length) % kTensorAlignment != 0) {
    throw Error(ErrorCode::kBadFile, "header: length " + std::to_string(length) +
                                         " does not end at a multiple of " +
                                         std::to_string(kTensorAlignment) + " bytes");
  }
  return length;
}

/// All that the file says about itself, checked; the rest of it is not touched.
WeightPlan read_plan(std::span<const std::byte> file, const std::string& label) {
  try {
    const std::uint64_t length = header_length(file);
    const auto text = checked_subspan(file, kHeaderLengthBytes, length, "header");
    return WeightPlan(parse_weight_header({reinterpret_cast<const char*>(text.data()), text.size()}),
                      kHeaderLengthBytes + length, file.size());
  } catch (const Error& error) {
    throw Error(error.code(), "'" + label + "': " + error.what());
  }
}

}  // namespace

WeightFile::WeightFile(std::string label, std::optional<MappedFile> mapping, std::span<const std::byte> file)
    : label_(std::move(label)), mapping_(std::move(mapping)), file_(file), plan_(read_plan(file, label_)) {}

WeightFile WeightFile::open(const std::string& path) {
  MappedFile mapping = MappedFile::open(path);
  const auto file = mapping.bytes();
  return {path, std::move(mapping), file};
}

WeightFile WeightFile::parse(std::span<const std::byte> file, std::string label) {
  TERRACE_CHECK(
      reinterpret_cast<std::uintptr_t>(file.data()) % kTensorAlignment == 0, kBadArgument,
      "a model file in memory must start at a multiple of " + std::to_string(kTensorAlignment) + " bytes");
  return {std::move(label), std::nullopt, file};
}

const TensorInfo& WeightFile::get(std::string_view name) const {
  const TensorInfo* tensor = find(name);
  TERRACE_CHECK(tensor != nullptr, kBadFile, "'" + label_ + "': " + where(name) + " is missing");
  return *tensor;
}

WeightView WeightFile::weight(std::string_view name) const {
  const TensorInfo& tensor = get(name);
  const auto dtype = weight_dtype(tensor);
  TERRACE_CHECK(dtype.has_value(), kUnsupported,
                "'" + label_ + "': " + where(name) + " has type " + stored_type_name(tensor.type) +
                    ", expected F32, BF16, I8 or U8");
  const std::vector<std::uint64_t> shape = weight_shape(tensor);
  WeightView view;
  view.data = data(tensor).data();
  view.dtype = *dtype;
  view.cols = shape.empty() ? 1 : shape.back();
  view.row_stride = view.cols;
  view.rows = 1;
  // Cannot wrap: the plan has checked the product of the whole shape.
  for (std::size_t axis = 0; axis + 1 < shape.size(); ++axis) view.rows *= shape[axis];
  if (is_quantized(*dtype)) {
    view.scale = data(get(std::string(name) + std::string(kScaleSuffix))).data();
  }
  return view;
}

std::span<const float> WeightFile::f32(std::string_view name) const {
  const TensorInfo& tensor = get(name);
  TERRACE_CHECK(
      tensor.type == StoredType::kF32, kBadFile,
      "'" + label_ + "': " + where(name) + " has type " + stored_type_name(tensor.type) + ", expected F32");
  const auto bytes = data(tensor);
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

}  // namespace terrace
