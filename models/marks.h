// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "engine/memory.h"
#include "engine/recurrent_state.h"

namespace terrace {

/// What a session keeps of a few neighbouring positions, so that it can go back to one of them without
/// computing a token again: the recurrent block and the hidden row (which gives the logits) as they were
/// there. One mark per position, in order.
class Marks {
 public:
  /// Reserves `most` marks. Throws Error{kOutOfMemory}.
  Marks(std::size_t most, std::size_t recurrent_floats, std::size_t hidden_floats)
      : recurrent_floats_(recurrent_floats),
        recurrent_(most * recurrent_floats * sizeof(float), "marks of the recurrent state"),
        hidden_floats_(hidden_floats),
        hidden_(most * hidden_floats) {}

  /// Starts a run of neighbours: the mark of `position` is now the only one.
  void start(std::size_t position, std::span<const float> recurrent, std::span<const float> hidden) noexcept {
    first_ = position;
    n_ = 1;
    most_used_ = std::max(most_used_, n_);
    std::copy(recurrent.begin(), recurrent.end(), recurrent_of(0).begin());
    std::copy(hidden.begin(), hidden.end(), hidden_of(0).begin());
  }
  /// The block for a pass over the rows after the only mark: the pass leaves in it what marks will hold.
  RecurrentBlock block_of_pass(std::span<float> recurrent) const noexcept {
    return {recurrent.data(), recurrent_floats_ > 0 ? recurrent_of(1).data() : nullptr, recurrent_floats_};
  }
  /// Takes over that pass, of n_rows rows with these hidden rows; its end is not marked.
  void take_pass(std::size_t n_rows, const float* hidden, std::size_t stride) noexcept {
    for (std::size_t i = 1; i < n_rows; ++i)
      std::copy_n(hidden + (i - 1) * stride, hidden_floats_, hidden_of(i).begin());
    n_ = n_rows;
    most_used_ = std::max(most_used_, n_);
  }
  /// Forgets the marks after `position`.
  void cut(std::size_t position) noexcept {
    n_ = position < first_ ? 0 : std::min(n_, position - first_ + 1);
  }

  /// Forgets all marks.
  void clear() noexcept { first_ = n_ = 0; }

  /// Memory in use.
  std::size_t bytes() const noexcept {
    return most_used_ * (recurrent_floats_ + hidden_floats_) * sizeof(float);
  }
  /// The mark of `position`, if there is one.
  std::optional<std::size_t> find(std::size_t position) const noexcept {
    if (position < first_ || position - first_ >= n_) return std::nullopt;
    return position - first_;
  }
  std::span<float> recurrent_of(std::size_t mark) const noexcept {
    return recurrent_.as<float>().subspan(mark * recurrent_floats_, recurrent_floats_);
  }
  std::span<float> hidden_of(std::size_t mark) noexcept {
    return std::span(hidden_).subspan(mark * hidden_floats_, hidden_floats_);
  }

 private:
  std::size_t recurrent_floats_;
  VirtualBuffer recurrent_;  // [most, recurrent_floats]
  std::size_t hidden_floats_;
  std::vector<float> hidden_;  // [most, hidden_floats]
  std::size_t first_ = 0, n_ = 0, most_used_ = 0;
};

}  // namespace terrace
