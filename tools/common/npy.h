// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/atomic_file.h"
#include "engine/tensor.h"

namespace terrace::tools {

/// A float32 matrix of a file.
struct NpyMatrix {
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::vector<float> values;

  ConstRows view() const noexcept { return {values.data(), rows, cols, cols}; }
};

/// Reads a matrix as numpy.save() writes it: little-endian float32, two axes, in row order, no NaN and no
/// infinity. Throws Error{kIo, kBadFile} that names the file, what was expected and what was found.
NpyMatrix read_npy(const std::string& path);

/// Writes a float32 matrix as a NumPy .npy file (format 1.0), row by row, so that memory does not grow with
/// its size. The file appears under its name only when it is complete.
class NpyWriter {
 public:
  /// Reserves space for the whole file. Throws Error{kIo} when it cannot be written or does not fit.
  NpyWriter(const std::string& path, std::size_t rows, std::size_t cols);

  /// Appends one row of `cols` values. Throws Error{kIo}.
  void add_row(std::span<const float> row);
  /// Puts the file in its place once all rows are in. Throws Error{kIo}.
  void commit();

 private:
  NpyWriter(const std::string& path, const std::string& head, std::size_t rows, std::size_t cols);

  AtomicFile file_;
  std::uint64_t offset_;
  std::size_t rows_left_;
  std::size_t cols_;
};

}  // namespace terrace::tools
