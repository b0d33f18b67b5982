// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/serial.h"

namespace terrace {

/// The nested widths with which each token of a context was read, as runs of tokens with equal widths: a
/// recomputed token must be computed as it was.
class WidthHistory {
 public:
  explicit WidthHistory(std::size_t n_blocks) : n_blocks_(n_blocks) { make_room(); }

  /// Makes room for one more run, so that note() takes no memory. Throws std::bad_alloc.
  void make_room() {
    if (begins_.size() < begins_.capacity() && widths_.size() + n_blocks_ <= widths_.capacity()) return;
    begins_.reserve(2 * begins_.size() + 1);
    widths_.reserve((2 * begins_.size() + 1) * n_blocks_);
  }
  /// The tokens from `position` on are read with `widths`, one per block.
  void note(std::size_t position, std::span<const std::uint32_t> widths) {
    cut(position);
    if (!begins_.empty() && std::ranges::equal(widths_of(begins_.size() - 1), widths)) return;
    begins_.push_back(position);
    widths_.insert(widths_.end(), widths.begin(), widths.end());
  }
  /// Forgets the tokens from `position` on.
  void cut(std::size_t position) noexcept {
    while (!begins_.empty() && begins_.back() >= position) begins_.pop_back();
    widths_.resize(begins_.size() * n_blocks_);
  }
  /// Calls fn(begin, end, widths) for the runs of the tokens [begin, end), in order. fn must not call note().
  template <class F>
  void for_runs(std::size_t begin, std::size_t end, F&& fn) const {
    for (std::size_t i = 0; i < begins_.size(); ++i) {
      const std::size_t first = std::max<std::size_t>(begin, begins_[i]);
      const std::size_t last = i + 1 < begins_.size() ? std::min<std::size_t>(end, begins_[i + 1]) : end;
      if (first < last) fn(first, last, widths_of(i));
    }
  }

  void save(ByteSink& sink) const;
  /// Reads the history of `n_tokens` tokens. Throws Error{kBadFile} unless its runs cover them in order.
  void load(ByteSource& source, std::size_t n_tokens);

 private:
  std::span<const std::uint32_t> widths_of(std::size_t run) const noexcept {
    return std::span(widths_).subspan(run * n_blocks_, n_blocks_);
  }

  std::size_t n_blocks_;
  std::vector<std::uint64_t> begins_;  ///< first position of every run
  std::vector<std::uint32_t> widths_;  ///< [run, block]
};

}  // namespace terrace
