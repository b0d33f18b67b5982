// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "attention/kernels/kv_page.h"
#include "attention/kv_rows.h"
#include "attention/page_store.h"
#include "engine/exec.h"
#include "engine/serial.h"
#include "engine/tensor.h"

namespace terrace {

/// Keys and values of one attention layer, one slot per appended row.
///
/// Slots are numbered 0, 1, 2, ... in the order of appending and carry no position: a layer that skips tokens
/// simply has fewer. Memory for `max_length` slots is reserved at construction and committed as it fills, so
/// that append never allocates. Pages (kPageSlots slots of all heads) are shared between forks until one of
/// them writes there again. Layout of a page: [head]{scales, keys, values} as in kernels/kv_page.h. Not
/// thread-safe; forks are independent of each other.
class KvCache {
 public:
  KvCache() = default;
  /// Throws Error{kOutOfMemory, kBadArgument}.
  KvCache(std::size_t n_heads, std::size_t d_k, std::size_t d_v, KvType type, std::size_t max_length);
  KvCache(KvCache&&) noexcept = default;
  KvCache& operator=(KvCache&&) noexcept = default;

  std::size_t n_heads() const noexcept { return n_heads_; }  ///< KV heads
  std::size_t d_k() const noexcept { return d_k_; }
  std::size_t d_v() const noexcept { return d_v_; }
  KvType type() const noexcept { return rows_.type(); }
  std::size_t length() const noexcept { return length_; }
  std::size_t max_length() const noexcept { return max_length_; }
  /// Bytes of the pages in use, including those shared with a fork.
  std::size_t bytes() const noexcept;
  /// Bytes of keys and values that a pass over all slots reads.
  std::size_t bytes_per_slot() const noexcept { return n_heads_ * rows_.slot_bytes(); }

  /// Appends k.n rows: k [T, n_heads * d_k], v [T, n_heads * d_v]. Needs length() + T <= max_length().
  void append(const Exec& exec, ConstRows k, ConstRows v) noexcept;
  /// The two halves of append(), for a phase that continues with a head on the thread that wrote its rows:
  /// grow() by n slots first, then write the rows of every head, on any threads. New slots must be written
  /// before they are read.
  void grow(std::size_t n) noexcept;
  void write_head(std::size_t head, ConstRows k, ConstRows v) noexcept;
  /// Forgets all slots from `length` on (no effect when there are none). Throws Error{kOutOfMemory} when a
  /// page shared with a fork must be copied first; the cache is then unchanged.
  void truncate(std::size_t length);
  /// An independent cache with the same content; full pages are shared. Throws Error{kOutOfMemory}.
  KvCache fork() const;

  void save(ByteSink& sink) const;
  /// Replaces the content. Throws Error{kBadFile} when the state was saved by a cache of another shape or is
  /// longer than max_length(); the cache is then empty.
  void load(ByteSource& source);

  std::size_t n_pages_in_use() const noexcept { return (length_ + kPageSlots - 1) / kPageSlots; }
  /// The part of a page that belongs to a head.
  const std::byte* part(std::size_t page, std::size_t head) const noexcept {
    return pages_.page(page) + head * head_bytes_;
  }
  const std::byte* keys(std::size_t page, std::size_t head) const noexcept {
    return part(page, head) + rows_.keys_offset();
  }
  const std::byte* values(std::size_t page, std::size_t head) const noexcept {
    return part(page, head) + rows_.values_offset();
  }
  /// Prefetches what a pass over the slots in use reads of a head in a page.
  void prefetch(std::size_t page, std::size_t head) const noexcept {
    rows_.prefetch(std::min(kPageSlots, length_ - page * kPageSlots), part(page, head));
  }
  /// q8: scales of the page's keys, then of its values, kPageSlots each.
  const float* scales(std::size_t page, std::size_t head) const noexcept {
    return reinterpret_cast<const float*>(part(page, head));
  }

 private:
  /// Opens or closes, for all heads, the group that `n_slots` slots of a page leave unfinished, if there is
  /// one (KvRows::turn_group).
  void turn_last_group(std::size_t n_slots, bool open, std::byte* page) const noexcept;

  std::size_t n_heads_ = 0, d_k_ = 0, d_v_ = 0;
  KvRows rows_;
  std::size_t max_length_ = 0, length_ = 0;
  std::size_t head_bytes_ = 0;  // of one head in one page
  PageStore pages_;
};

}  // namespace terrace
