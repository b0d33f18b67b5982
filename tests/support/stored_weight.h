// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/tensor.h"
#include "tests/support/naive_layers.h"

namespace terrace::test {

/// Random f32 values in [-scale, scale], always the same for a seed.
std::vector<float> random_floats(std::size_t n, std::uint64_t seed, float scale = 1.0F);

/// A random weight matrix as a model file would hold it, and the values that its bytes stand for.
class StoredWeight {
 public:
  /// Values in [-scale, scale]; q4 needs cols to be a multiple of 64.
  StoredWeight(DType dtype, std::size_t rows, std::size_t cols, std::uint64_t seed, float scale = 1.0F);

  WeightView view() const noexcept;
  /// What the stored bytes mean, in double.
  const Matrix& values() const noexcept { return values_; }

 private:
  void store_q8(const std::vector<float>& w);
  void store_q4(const std::vector<float>& w);

  DType dtype_;
  Matrix values_;
  std::vector<float> f32_;
  std::vector<std::uint16_t> bf16_;
  std::vector<std::int8_t> q8_;
  std::vector<std::uint8_t> q4_;
  std::vector<float> q8_scale_;
  std::vector<std::uint16_t> q4_scale_;
};

/// Given f32 values, `rows` equal rows of them, as a weight.
inline WeightView f32_view(const std::vector<float>& values, std::size_t rows) noexcept {
  const std::size_t cols = values.size() / rows;
  return {values.data(), nullptr, rows, cols, cols, DType::kF32};
}

/// Every dtype of a weight.
inline constexpr DType kAllDtypes[] = {DType::kF32, DType::kBf16, DType::kQ8, DType::kQ4};

/// How far a layer with weights of `dtype` may be from its double version, relative to the largest output:
/// rounding of f32 sums, or of activations to 8 bits.
constexpr double tolerance(DType dtype) noexcept {
  return dtype == DType::kF32 || dtype == DType::kBf16 ? 5e-6 : 2.5e-2;
}

}  // namespace terrace::test
