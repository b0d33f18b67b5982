// SPDX-License-Identifier: Apache-2.0
#include "models/token_cost.h"

namespace terrace {
namespace {

std::uint64_t row_total_bytes(DType dtype, std::uint64_t columns) noexcept {
  return row_bytes(dtype, columns) + row_scale_bytes(dtype, columns);
}

}  // namespace

DType stored_dtype(const PlannedTensor& tensor, const WeightDTypes& wanted) noexcept {
  if (!tensor.is_weight) return DType::kF32;
  const DType dtype = wanted.of(tensor.kind);
  return dtype == DType::kQ4 && tensor.columns() % kQ4Columns != 0 ? DType::kQ8 : dtype;
}

std::uint64_t stored_bytes(const PlannedTensor& tensor, DType dtype) noexcept {
  return tensor.elements() / tensor.columns() * row_total_bytes(dtype, tensor.columns());
}

std::uint64_t touched_bytes(const PlannedTensor& tensor, DType dtype) noexcept {
  return tensor.touched / tensor.columns() * row_total_bytes(dtype, tensor.columns());
}

TokenCost& TokenCost::operator+=(const TokenCost& other) noexcept {
  parameters += other.parameters;
  touched += other.touched;
  multiply_adds += other.multiply_adds;
  return *this;
}

TokenCost token_cost(const PlannedTensor& tensor) noexcept {
  return {tensor.elements(), tensor.touched, tensor.touched * tensor.uses};
}

TokenCost token_cost(std::span<const PlannedTensor> plan) noexcept {
  TokenCost total;
  for (const PlannedTensor& tensor : plan) total += token_cost(tensor);
  return total;
}

}  // namespace terrace
