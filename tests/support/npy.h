// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace terrace::test {

/// A two-dimensional (or flat: rows x 1) array of an .npy file.
template <class T>
struct Array {
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::vector<T> values;

  const T* row(std::size_t r) const { return values.data() + r * cols; }
};

/// Reads a little-endian, C-ordered .npy file of float32 / int32. Fails the test when it is anything else.
Array<float> read_npy_f32(const std::string& path);
Array<std::int32_t> read_npy_i32(const std::string& path);

}  // namespace terrace::test
