// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "engine/memory.h"
#include "engine/runtime.h"
#include "engine/tensor.h"
#include "models/model.h"
#include "models/token.h"

namespace terrace {

/// Rows that one layer was given, one after the other.
class CollectedRows {
 public:
  CollectedRows(std::size_t capacity, std::size_t width)
      : buffer_(capacity * width * sizeof(float), "rows of a calibration"), width_(width) {}

  void append(ConstRows rows) noexcept;
  Rows rows() const noexcept { return {reinterpret_cast<float*>(buffer_.data()), n_, width_, width_}; }

 private:
  VirtualBuffer buffer_;
  std::size_t width_;
  std::size_t n_ = 0;
};

/// What the feed-forward layers of decoder blocks [begin, end) see while a language model reads `ids` in
/// windows of its context, at most kCalibrationContext tokens long and each after a start token: for each of
/// the blocks the rows of the tokens that run it, in order. `progress` is told how many ids are done; false
/// stops, Error{kCancelled}. Throws Error{kBadToken, kOutOfMemory}. Memory: ids.size() rows for each block.
std::vector<CollectedRows> feed_forward_inputs(const Model& model, Runtime& runtime,
                                               std::span<const TokenId> ids, std::size_t begin,
                                               std::size_t end,
                                               const std::function<bool(std::size_t done)>& progress);
inline constexpr std::size_t kCalibrationContext = 512;

}  // namespace terrace
