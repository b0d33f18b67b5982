// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

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

/// A layer's floats of the recurrent block, during a pass over rows. In a pass that may be taken back in part
/// (Session::verify) the layer also leaves a copy of them as they were after each row but the last.
class RecurrentSlot {
 public:
  /// Nothing is left behind.
  RecurrentSlot(std::span<float> now) noexcept : now_(now) {}  // NOLINT(google-explicit-constructor)
  RecurrentSlot(std::span<float> now, float* after, std::size_t stride) noexcept
      : now_(now), after_(after), stride_(stride) {}

  std::span<float> now() const noexcept { return now_; }
  bool leaves_rows() const noexcept { return after_ != nullptr; }
  /// Where their state after row t goes, to be filled in; only if leaves_rows().
  float* after(std::size_t t) const noexcept { return after_ + t * stride_; }
  /// Fills it in with their present state.
  void leave(std::size_t t) const noexcept {
    if (after_ != nullptr) std::copy(now_.begin(), now_.end(), after(t));
  }
  RecurrentSlot part(std::size_t offset, std::size_t n_floats) const noexcept {
    return {now_.subspan(offset, n_floats), after_ != nullptr ? after_ + offset : nullptr, stride_};
  }

 private:
  std::span<float> now_;
  float* after_ = nullptr;
  std::size_t stride_ = 0;
};

/// The recurrent block of a session during a pass, in which layers find their slots.
class RecurrentBlock {
 public:
  RecurrentBlock(float* now) noexcept : now_(now) {}  // NOLINT(google-explicit-constructor)
  /// `after`: [rows of the pass - 1], blocks that lie `stride` floats apart; null leaves nothing behind.
  RecurrentBlock(float* now, float* after, std::size_t stride) noexcept
      : now_(now), after_(after), stride_(stride) {}

  RecurrentSlot slot(const StateSlot& s) const noexcept {
    return {{now_ + s.offset, s.size}, after_ != nullptr ? after_ + s.offset : nullptr, stride_};
  }

 private:
  float* now_;
  float* after_ = nullptr;
  std::size_t stride_ = 0;
};

}  // namespace terrace
