// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "attention/page_store.h"
#include "engine/serial.h"

namespace terrace {

/// Copies of a session's recurrent block at equal distances, numbered from 0. Forks share those that both
/// have: PageStore, a page each.
class Snapshots {
 public:
  Snapshots() = default;
  /// Room for `most` of n_floats floats, all zeros. Throws Error{kOutOfMemory}.
  Snapshots(std::size_t n_floats, std::size_t most) : n_floats_(n_floats) {
    if (n_floats > 0) {
      pages_ = PageStore(n_floats * sizeof(float), most, "snapshots of the recurrent state");
    }
  }

  std::span<const float> at(std::size_t i) const noexcept {
    return {reinterpret_cast<const float*>(pages_.page(i)), n_floats_};
  }
  /// Fills in snapshot `i`, which must not lie before the last cut or fork.
  void put(std::size_t i, std::span<const float> state) noexcept {
    std::copy(state.begin(), state.end(), reinterpret_cast<float*>(pages_.writable_page(i)));
  }

  /// Only the first n will be read again. Throws Error{kOutOfMemory}, and then nothing has changed.
  void cut(std::size_t n) {
    if (n_floats_ > 0) pages_.truncate(n, /*keep_first=*/false);
  }
  /// A copy that has the first n. Throws Error{kOutOfMemory}.
  Snapshots fork(std::size_t n) const {
    Snapshots child;
    child.n_floats_ = n_floats_;
    if (n_floats_ > 0) child.pages_ = pages_.fork(n, /*copy_next=*/false);
    return child;
  }

  /// The first n.
  void save(ByteSink& sink, std::size_t n) const {
    for (std::size_t i = 0; i < n && n_floats_ > 0; ++i) write_array(sink, at(i).data(), n_floats_);
  }
  void load(ByteSource& source, std::size_t n) {
    cut(0);
    for (std::size_t i = 0; i < n && n_floats_ > 0; ++i) {
      read_array(source, reinterpret_cast<float*>(pages_.writable_page(i)), n_floats_);
    }
  }

 private:
  std::size_t n_floats_ = 0;
  PageStore pages_;
};

}  // namespace terrace
