// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/tensor.h"
#include "models/tensor_plan.h"

namespace terrace {

/// Gaussian random weights, straight into a stored dtype. Counter-based: an element depends on the seed, the
/// tensor's name and its place only, so rows may be made in any order, by any thread, and every dtype of one
/// seed holds the same weights up to its rounding.
///
///   word(row, k) = splitmix64(key + (row * ceil(columns / 4) + k) * golden)   16 bits for each of 4 elements
///   w[row, 4 k + i] = mean + std of the row * quantile[the i-th 16 bits of word, lower 12]
///
/// where quantile holds the 4096 mid-quantiles of the normal distribution: mean 0, largest |z| 3.67.
/// Quantised rows have one scale that depends on std only. Cost: one table look-up per element.
class RandomWeights {
 public:
  /// Of a tensor of rows of `columns` elements (q4: a multiple of kQ4Columns). `initial.mean` must be 0 for
  /// q8 and q4.
  RandomWeights(std::uint64_t seed, std::string_view tensor, DType dtype, std::uint64_t columns,
                const InitialValue& initial);

  /// Stored bytes of one row, and of its scale.
  std::size_t row_bytes() const noexcept { return terrace::row_bytes(dtype_, columns_); }
  std::size_t scale_bytes() const noexcept { return row_scale_bytes(dtype_, columns_); }

  /// Writes row `row` to data[row_bytes()] and its scale to scale[scale_bytes()].
  void fill_row(std::uint64_t row, std::byte* data, std::byte* scale) const noexcept;

 private:
  template <class T>
  void fill_elements(std::uint64_t first_word, const T* table, T* out) const noexcept;
  void fill_q4(std::uint64_t first_word, const std::int8_t* table, std::byte* out) const noexcept;

  std::uint64_t key_;
  DType dtype_;
  std::size_t columns_;
  std::uint64_t run_;
  // A table for each standard deviation, in the dtype's own representation.
  std::vector<std::vector<float>> f32_;
  std::vector<std::vector<std::uint16_t>> bf16_;
  std::vector<std::int8_t> steps_;  ///< q8, q4: in steps of the scale, the same for all rows
  std::vector<float> scale_;
};

}  // namespace terrace
