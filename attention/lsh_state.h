// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "attention/page_store.h"
#include "attention/slot_rows.h"
#include "engine/serial.h"

namespace terrace {

/// What the incremental LSH attention of one layer remembers: per head and slot the key and value rows, the
/// bucket of every hash round and a link to the previous slot of that bucket.
///
/// The links make every bucket a list from its newest slot backwards, which is the order in which Trax's rule
/// prefers slots. Pages are append-only and shared between forks; only the list heads (one number per head,
/// round and bucket) are mutable. Rolling back pops list heads: O(1) per slot and round.
class LshState {
 public:
  /// No slot: the end of a bucket list.
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;
  /// Earlier slots of its bucket that every slot names. Slots lie anywhere in memory, so each step of a walk
  /// waits for memory: a walk advances by that many slots per step.
  static constexpr std::size_t kTrail = 7;  // with the bucket, two rounds fill a cache line

  /// Bytes of one head in a page.
  static std::size_t head_bytes(std::size_t d_k, std::size_t d_v, KvType type, std::size_t n_hashes);

  LshState() = default;
  /// `type`: how keys and values are kept (SlotRows). Throws Error{kOutOfMemory, kBadArgument}.
  LshState(std::size_t n_heads, std::size_t d_k, std::size_t d_v, KvType type, std::size_t n_hashes,
           std::uint32_t n_buckets, std::size_t max_length);
  LshState(LshState&&) noexcept = default;
  LshState& operator=(LshState&&) noexcept = default;

  std::size_t length() const noexcept { return length_; }
  std::size_t max_length() const noexcept { return max_length_; }
  /// Bytes of the pages in use, including those shared with a fork, and of the list heads.
  std::size_t bytes() const noexcept;

  /// Forgets all slots from `length` on. Throws Error{kOutOfMemory} when a shared page must be copied first.
  void truncate(std::size_t length);
  /// An independent state with the same content; full pages are shared. Throws Error{kOutOfMemory}.
  LshState fork() const;

  void save(ByteSink& sink) const;
  /// Throws Error{kBadFile} when the state was saved with another shape or type, is too long, or holds an
  /// impossible bucket; the state is then empty.
  void load(ByteSource& source);

  // One head's view, for LshAttention. A chunk owns a head, so heads may be written side by side.
  const SlotRows& rows() const noexcept { return rows_; }
  const std::byte* key(std::size_t head, std::size_t slot) const noexcept {
    return rows_.key(slot % kPageSlots, part(head, slot));
  }
  const std::byte* value(std::size_t head, std::size_t slot) const noexcept {
    return rows_.value(slot % kPageSlots, part(head, slot));
  }
  /// Requests the key and the value of a slot that a query will attend to.
  void prefetch(std::size_t head, std::size_t slot) const noexcept {
    rows_.prefetch(slot % kPageSlots, part(head, slot));
  }
  /// Of key and value; only where rows() are q8.
  const float* scales(std::size_t head, std::size_t slot) const noexcept {
    return rows_.scales(slot % kPageSlots, part(head, slot));
  }
  std::uint32_t bucket(std::size_t head, std::size_t slot, std::size_t round) const noexcept {
    return links(head, slot)[n_hashes_ * kTrail + round];
  }
  /// The kTrail slots before `slot` in its bucket of `round`, newest first, then kNone.
  const std::uint32_t* trail(std::size_t head, std::size_t slot, std::size_t round) const noexcept {
    return links(head, slot) + round * kTrail;
  }
  /// The newest slot of a bucket, or kNone.
  std::uint32_t newest(std::size_t head, std::size_t round, std::uint32_t bucket) const noexcept;
  /// Has the system give memory to the next `n` slots. Before they are written; a hint.
  void commit_next(std::size_t n) const noexcept;
  /// Places key, value and buckets of `head` at `slot` (the next free one) and links it into its lists.
  void write(std::size_t head, std::size_t slot, const float* key, const float* value,
             const std::uint32_t* buckets) noexcept;
  /// Whether queries attend to every remembered slot instead of those that their hashes choose. A setting:
  /// forks inherit it, saved states do not.
  bool attends_all() const noexcept { return attends_all_; }
  void attend_all() noexcept { attends_all_ = true; }

  /// Ends an append: all heads have written slots up to `length`.
  void set_length(std::size_t length) noexcept { length_ = length; }

 private:
  /// The head's part of the page of `slot`.
  const std::byte* part(std::size_t head, std::size_t slot) const noexcept {
    return pages_.page(slot / kPageSlots) + head * head_bytes_;
  }
  /// The same of a page that no fork shares.
  std::byte* writable_part(std::size_t head, std::size_t slot) noexcept {
    return pages_.writable_page(slot / kPageSlots) + head * head_bytes_;
  }
  const std::uint32_t* links(std::size_t head, std::size_t slot) const noexcept {  // trails, then buckets
    return reinterpret_cast<const std::uint32_t*>(part(head, slot) + links_offset_) +
           slot % kPageSlots * link_numbers_;
  }
  std::uint32_t& newest_of(std::size_t head, std::size_t round, std::uint32_t bucket) noexcept;
  void link(std::size_t head, std::size_t slot, const std::uint32_t* buckets) noexcept;
  void relink(std::size_t begin, std::size_t end) noexcept;

  std::size_t n_heads_ = 0, n_hashes_ = 0;
  std::uint32_t n_buckets_ = 0;  // of one round
  std::size_t max_length_ = 0, length_ = 0;
  bool attends_all_ = false;
  SlotRows rows_;
  std::size_t links_offset_ = 0, link_numbers_ = 0, head_bytes_ = 0;  // links lie in a head's part of a page
  PageStore pages_;
  std::vector<std::uint32_t> newest_;  // [n_heads, n_hashes, n_buckets]
};

}  // namespace terrace
