// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "engine/exec.h"
#include "engine/recurrent_state.h"
#include "engine/tensor.h"

namespace terrace {

/// Causal convolution over time, channel by channel, with three taps (Trax `CausalDepthwiseConv`):
///   y[t, c] = x[t, c] w[0, c] + x[t-1, c] w[1, c] + x[t-2, c] w[2, c]
/// Rows before the start are 0. State: the last two input rows. (Trax keeps none in predict mode, so that its
/// predict differs from its eval; this is the eval form.)
class DepthwiseConv {
 public:
  static constexpr std::size_t kTaps = 3;

  DepthwiseConv() = default;
  DepthwiseConv(const float* weight, std::size_t d, RecurrentLayout& layout)
      : weight_(weight), d_(d), tail_(layout.add((kTaps - 1) * d)) {}

  explicit operator bool() const noexcept { return weight_ != nullptr; }

  /// x = conv(x), in place.
  void forward(const Exec& exec, const RecurrentBlock& recurrent, Rows x) const noexcept {
    const RecurrentSlot slot = recurrent.slot(tail_);
    float* const tail = slot.now().data();  // rows t-2, t-1
    exec.for_range(d_, 16, kTaps * x.n, [&](std::size_t begin, std::size_t end) {
      for (std::size_t c = begin; c < end; ++c) {
        float before2 = tail[c];
        float before1 = tail[d_ + c];
        for (std::size_t t = 0; t < x.n; ++t) {
          const float now = x.row(t)[c];
          x.row(t)[c] = now * weight_[c] + before1 * weight_[d_ + c] + before2 * weight_[2 * d_ + c];
          before2 = before1;
          before1 = now;
          if (slot.leaves_rows() && t + 1 < x.n) {
            slot.after(t)[c] = before2;
            slot.after(t)[d_ + c] = before1;
          }
        }
        tail[c] = before2;
        tail[d_ + c] = before1;
      }
    });
  }

 private:
  const float* weight_ = nullptr;  ///< [3, d], row 0 = current step
  std::size_t d_ = 0;
  StateSlot tail_;
};

}  // namespace terrace
