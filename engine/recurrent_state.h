// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace terrace {

/// A place in a session's recurrent block: convolution tails, SRU cells, running sums.
struct StateSlot {
  std::size_t offset = 0;
  std::size_t size = 0;  ///< floats
};

/// Hands out places when a model is built. All recurrent state of a session is one flat block of floats, so
/// that fork, snapshot, rewind and saving are one copy, whatever layers a model has. A new kind of recurrent
/// layer adds its floats here and nowhere else. (Append-only state, K/V and hash ids, lives in
/// attention/kv_cache.h.)
class RecurrentLayout {
 public:
  StateSlot add(std::size_t n_floats) {
    // 16 floats = one cache line: slots of different layers never share one.
    const StateSlot slot{size_, n_floats};
    size_ += (n_floats + 15) / 16 * 16;
    return slot;
  }
  std::size_t size() const noexcept { return size_; }

 private:
  std::size_t size_ = 0;
};

}  // namespace terrace
