// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/memory.h"

namespace terrace {

/// Append-only memory in equal pages that a fork shares with its parent.
///
/// A store reserves room for all its pages at once and the system commits them on first touch, so writing a
/// page during a token never allocates. Page i always lies at place i of some reservation:
///   - fork(n): the child reads pages [0, n) where the parent has them and owns a fresh reservation for the
///     rest;
///   - truncate(i): pages from i on will be written again. If page i may be read by a fork, it moves to a
///     reservation of its own first.
/// Both happen between tokens. A page below a fork point is immutable while more than one store can read it.
class PageStore {
 public:
  /// 2^31 slots at 128 per page: more than any context, and the table of pages stays small beside them.
  static constexpr std::size_t kMostPages = std::size_t{1} << 24;

  PageStore() = default;
  /// `what` names the purpose in the message. Throws Error{kOutOfMemory}.
  PageStore(std::size_t page_bytes, std::size_t n_pages, std::string what);
  PageStore(PageStore&&) noexcept = default;
  PageStore& operator=(PageStore&&) noexcept = default;

  std::size_t page_bytes() const noexcept { return page_bytes_; }
  const std::byte* page(std::size_t i) const noexcept { return pages_[i]; }
  /// Only for pages that no fork shares: the one at the last truncate or fork point, and all above it.
  std::byte* writable_page(std::size_t i) noexcept { return pages_[i]; }

  /// Has the system give memory to page `i`, which this store owns, at once. A hint, before its first write.
  void commit(std::size_t i) const noexcept;

  /// A store that shares the first `n_shared` pages; page n_shared is copied if `copy_next`.
  /// Throws Error{kOutOfMemory}.
  PageStore fork(std::size_t n_shared, bool copy_next) const;

  /// Makes pages [first, n_pages) writable; the bytes of page `first` are kept if `keep_first`.
  /// Throws Error{kOutOfMemory}, and then nothing has changed.
  void truncate(std::size_t first, bool keep_first);

 private:
  struct Reservation;
  struct Segment {  // pages [first_page, first page of the next segment)
    std::size_t first_page;
    std::shared_ptr<Reservation> reservation;
  };

  /// Room of its own for the pages from `first` on.
  std::shared_ptr<Reservation> reserve(std::size_t first) const;
  void point_pages_from(std::size_t first) noexcept;

  std::size_t page_bytes_ = 0;
  std::string what_;
  std::vector<Segment> segments_;
  std::vector<std::byte*> pages_;
};

}  // namespace terrace
