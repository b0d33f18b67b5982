// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "engine/tensor.h"
#include "models/tensor_plan.h"
#include "models/weight_dtypes.h"

namespace terrace {

/// A part of a count, rounded down.
inline std::uint64_t scaled(std::uint64_t value, double factor) noexcept {
  return static_cast<std::uint64_t>(static_cast<double>(value) * factor);
}

/// The dtype in which a tensor is stored in a model of `wanted` dtypes: f32 unless it is a weight, and q8
/// instead of q4 where the row length is not a multiple of kQ4Columns.
DType stored_dtype(const PlannedTensor& tensor, const WeightDTypes& wanted) noexcept;

/// Bytes of a tensor in `dtype`, its scale included.
std::uint64_t stored_bytes(const PlannedTensor& tensor, DType dtype) noexcept;
/// Bytes of the elements that one token reads.
std::uint64_t touched_bytes(const PlannedTensor& tensor, DType dtype) noexcept;

/// What one decoded token costs, batch 1, K/V cache not counted: encoder layers and the cached keys and
/// values of cross attention cost nothing, tables one row.
struct TokenCost {
  std::uint64_t parameters = 0;
  std::uint64_t touched = 0;  ///< elements
  std::uint64_t multiply_adds = 0;

  TokenCost& operator+=(const TokenCost& other) noexcept;
};

TokenCost token_cost(const PlannedTensor& tensor) noexcept;
/// The cost of a whole plan.
TokenCost token_cost(std::span<const PlannedTensor> plan) noexcept;

}  // namespace terrace
