// SPDX-License-Identifier: Apache-2.0
#include "attention/page_store.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "engine/error.h"

namespace terrace {

/// Room for every page of a store. Pages below `n_shared` may be read by several stores.
struct PageStore::Reservation {
  Reservation(std::size_t bytes, const std::string& what, std::size_t huge_from)
      : memory(bytes, what, huge_from) {}

  VirtualBuffer memory;
  std::atomic<std::size_t> n_shared{0};
};

PageStore::PageStore(std::size_t page_bytes, std::size_t n_pages, std::string what)
    : page_bytes_(page_bytes), what_(std::move(what)) {
  TERRACE_CHECK(n_pages <= kMostPages && page_bytes <= SIZE_MAX / kMostPages, kOutOfMemory,
                "cannot reserve " + std::to_string(n_pages) + " pages of " + std::to_string(page_bytes) +
                    " bytes for " + what_);
  pages_.resize(n_pages);
  segments_.push_back({0, reserve(0)});
  point_pages_from(0);
}

std::shared_ptr<PageStore::Reservation> PageStore::reserve(std::size_t first) const {
  // Many forks stay short, in every layer: they shall not cost a huge page each.
  constexpr std::size_t kSmallBytes = std::size_t{2} << 20;
  return std::make_shared<Reservation>(page_bytes_ * pages_.size(), what_, first * page_bytes_ + kSmallBytes);
}

void PageStore::commit(std::size_t i) const noexcept {
  const VirtualBuffer& memory = segments_.back().reservation->memory;
  memory.commit(static_cast<std::size_t>(pages_[i] - memory.data()), page_bytes_);
}

void PageStore::point_pages_from(std::size_t first) noexcept {
  for (std::size_t s = 0; s < segments_.size(); ++s) {
    const std::size_t end = s + 1 < segments_.size() ? segments_[s + 1].first_page : pages_.size();
    std::byte* base = segments_[s].reservation->memory.data();
    for (std::size_t i = std::max(first, segments_[s].first_page); i < end; ++i)
      pages_[i] = base + i * page_bytes_;
  }
}

PageStore PageStore::fork(std::size_t n_shared, bool copy_next) const {
  PageStore child;
  child.page_bytes_ = page_bytes_;
  child.what_ = what_;
  child.pages_.resize(pages_.size());
  for (const Segment& segment : segments_) {
    if (segment.first_page < n_shared) child.segments_.push_back(segment);
  }
  child.segments_.push_back({n_shared, child.reserve(n_shared)});
  child.point_pages_from(0);
  if (copy_next) {
    child.commit(n_shared);
    std::memcpy(child.pages_[n_shared], pages_[n_shared], page_bytes_);
  }
  for (const Segment& segment : segments_) {
    // Forks may be made at the same time.
    std::atomic<std::size_t>& shared = segment.reservation->n_shared;
    std::size_t before = shared.load(std::memory_order_relaxed);
    while (before < n_shared && !shared.compare_exchange_weak(before, n_shared, std::memory_order_relaxed)) {
    }
  }
  return child;
}

void PageStore::truncate(std::size_t first, bool keep_first) {
  if (first >= pages_.size()) return;
  std::size_t owner = segments_.size() - 1;
  while (segments_[owner].first_page > first) --owner;
  Reservation& current = *segments_[owner].reservation;
  const bool alone = segments_[owner].reservation.use_count() == 1;
  if (alone) {
    // The last fork that could read these pages is gone; its reads happened before it let go of the
    // reservation.
    std::atomic_thread_fence(std::memory_order_acquire);
    current.n_shared.store(0, std::memory_order_relaxed);
  }
  const bool last = owner + 1 == segments_.size();
  if (alone || (last && first >= current.n_shared.load(std::memory_order_relaxed))) {
    segments_.resize(owner + 1);
    point_pages_from(first);
    return;
  }
  // A fork may read page `first`: go on in memory of our own.
  std::shared_ptr<Reservation> own = reserve(first);
  if (keep_first) std::memcpy(own->memory.data() + first * page_bytes_, pages_[first], page_bytes_);
  segments_.resize(segments_[owner].first_page == first ? owner : owner + 1);
  segments_.push_back({first, std::move(own)});
  point_pages_from(first);
}

}  // namespace terrace
