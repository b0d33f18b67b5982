// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "engine/atomic_file.h"

namespace terrace::tools {

/// Writes a float32 matrix as a NumPy .npy file (format 1.0), row by row, so that memory does not grow with
/// it. The file appears under its name only when it is complete.
class NpyWriter {
 public:
  /// Reserves the room of the whole file. Throws Error{kIo} when it cannot be written or does not fit.
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
