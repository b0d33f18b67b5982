// SPDX-License-Identifier: Apache-2.0
#include "attention/kv_cache.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <vector>

#include "engine/checked.h"
#include "engine/error.h"

namespace terrace {
namespace {

constexpr std::uint64_t kStateTag = 0x32'766B'7274;  // "trkv2": what load expects first

}  // namespace

KvCache::KvCache(std::size_t n_heads, std::size_t d_k, std::size_t d_v, KvType type, std::size_t max_length)
    : n_heads_(n_heads), d_k_(d_k), d_v_(d_v), rows_(type, d_k, d_v), max_length_(max_length) {
  TERRACE_CHECK(n_heads > 0 && d_k > 0 && d_v > 0, kBadArgument,
                "a K/V cache needs at least one head and one channel; found " + std::to_string(n_heads) +
                    " heads, d_k " + std::to_string(d_k) + ", d_v " + std::to_string(d_v));
  constexpr std::size_t kMost = std::size_t{1} << 40;
  TERRACE_CHECK(n_heads < kMost / kPageSlots / 4 / (d_k + d_v + kLanes), kBadArgument,
                "K/V rows of " + std::to_string(n_heads) + " heads are too wide");
  head_bytes_ = rows_.bytes();
  pages_ = PageStore(n_heads * head_bytes_, (max_length + kPageSlots - 1) / kPageSlots, "keys and values");
}

std::size_t KvCache::bytes() const noexcept { return n_pages_in_use() * pages_.page_bytes(); }

void KvCache::append(const Exec& exec, ConstRows k, ConstRows v) noexcept {
  grow(k.n);
  // The lines of a slot are scattered and rarely in a cache: each takes the time of several that stream.
  constexpr std::size_t kScattered = 4;
  const std::size_t work = kScattered * k.n * (d_k_ + d_v_) * sizeof(float);
  exec.for_range(n_heads_, 1, work, [&](std::size_t begin_head, std::size_t end_head) {
    for (std::size_t head = begin_head; head < end_head; ++head) write_head(head, k, v);
  });
}

void KvCache::grow(std::size_t n) noexcept {
  TERRACE_DCHECK(n <= max_length_ - length_);
  const std::size_t before = n_pages_in_use();
  length_ += n;
  for (std::size_t page = before; page < n_pages_in_use(); ++page) pages_.commit(page);
}

void KvCache::write_head(std::size_t head, ConstRows k, ConstRows v) noexcept {
  TERRACE_DCHECK(k.n == v.n && k.width == n_heads_ * d_k_ && v.width == n_heads_ * d_v_);
  const std::size_t first = length_ - k.n;
  for (std::size_t t = 0; t < k.n;) {
    const std::size_t page = (first + t) / kPageSlots;
    const std::size_t slot = (first + t) % kPageSlots;
    const std::size_t end = std::min(k.n, t + kPageSlots - slot);
    rows_.write(k, v, head, t, end, slot, pages_.writable_page(page) + head * head_bytes_);
    t = end;
  }
}

void KvCache::turn_last_group(std::size_t n_slots, bool open, std::byte* page) const noexcept {
  if (n_slots % kLanes == 0) return;
  for (std::size_t head = 0; head < n_heads_; ++head)
    rows_.turn_group(n_slots, open, page + head * head_bytes_);
}

void KvCache::truncate(std::size_t length) {
  if (length >= length_) return;
  const std::size_t page = length / kPageSlots, n_slots = length % kPageSlots;
  pages_.truncate(page, n_slots != 0);
  const bool was_open = length / kLanes == length_ / kLanes;
  if (n_slots != 0 && !was_open) turn_last_group(n_slots, true, pages_.writable_page(page));
  length_ = length;
}

KvCache KvCache::fork() const {
  KvCache child;
  child.n_heads_ = n_heads_;
  child.d_k_ = d_k_;
  child.d_v_ = d_v_;
  child.rows_ = rows_;
  child.max_length_ = max_length_;
  child.length_ = length_;
  child.head_bytes_ = head_bytes_;
  child.pages_ = pages_.fork(length_ / kPageSlots, length_ % kPageSlots != 0);
  return child;
}

void KvCache::save(ByteSink& sink) const {
  for (const std::uint64_t value :
       {kStateTag, std::uint64_t{n_heads_}, std::uint64_t{d_k_}, std::uint64_t{d_v_},
        static_cast<std::uint64_t>(type()), std::uint64_t{length_}}) {
    write_u64(sink, value);
  }
  const std::size_t full = length_ / kPageSlots;
  for (std::size_t page = 0; page < full; ++page) write_array(sink, pages_.page(page), pages_.page_bytes());
  const std::size_t rest = length_ % kPageSlots;
  if (rest == 0) return;
  // Slots past the end may hold what was truncated: equal states must give equal bytes. No group is open in a
  // file.
  std::vector<std::byte> last(pages_.page(full), pages_.page(full) + pages_.page_bytes());
  turn_last_group(rest, false, last.data());
  for (std::size_t head = 0; head < n_heads_; ++head) rows_.clear(rest, last.data() + head * head_bytes_);
  write_array(sink, last.data(), last.size());
}

void KvCache::load(ByteSource& source) {
  truncate(0);
  expect_u64(source, kStateTag, "kind of the K/V cache");
  expect_u64(source, n_heads_, "number of K/V heads");
  expect_u64(source, d_k_, "width of a key");
  expect_u64(source, d_v_, "width of a value");
  const std::uint64_t type_found = read_u64(source, std::size(kKvTypes) - 1, "type of the K/V cache");
  TERRACE_CHECK(type_found == static_cast<std::uint64_t>(type()), kBadFile,
                std::string("keys and values were saved as ") + kv_type_name(kKvTypes[type_found]) +
                    ", expected " + kv_type_name(type()));
  const auto length = static_cast<std::size_t>(read_u64(source, max_length_, "number of cached positions"));
  for (std::size_t page = 0; page * kPageSlots < length; ++page) {
    read_array(source, pages_.writable_page(page), pages_.page_bytes());
  }
  const std::size_t rest = length % kPageSlots;
  if (rest != 0) turn_last_group(rest, true, pages_.writable_page(length / kPageSlots));
  length_ = length;
}

}  // namespace terrace
