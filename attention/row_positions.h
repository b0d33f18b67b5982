// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace terrace {

/// Positions in the sequence of the rows of a pass: consecutive, or listed where a block skips rows. Does not
/// own.
class RowPositions {
 public:
  RowPositions(std::size_t first) noexcept : first_(first) {}                               // NOLINT
  RowPositions(std::span<const std::uint32_t> listed) noexcept : listed_(listed.data()) {}  // NOLINT

  std::size_t operator[](std::size_t row) const noexcept { return listed_ ? listed_[row] : first_ + row; }
  /// The positions of the rows from `begin` on.
  RowPositions from(std::size_t begin) const noexcept {
    RowPositions rest = *this;
    if (listed_) {
      rest.listed_ += begin;
    } else {
      rest.first_ += begin;
    }
    return rest;
  }

 private:
  std::size_t first_ = 0;
  const std::uint32_t* listed_ = nullptr;
};

}  // namespace terrace
