// SPDX-License-Identifier: Apache-2.0
#include "attention/lsh_state.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "attention/kernels/kv_page.h"
#include "engine/error.h"

namespace terrace {
namespace {

constexpr std::uint64_t kStateTag = 0x32'6873'6C72'74;  // "trlsh2"

constexpr std::size_t pages_for(std::size_t n_slots) noexcept {
  return (n_slots + kPageSlots - 1) / kPageSlots;
}

constexpr std::size_t link_numbers(std::size_t n_hashes) noexcept {
  return padded_width(n_hashes * (LshState::kTrail + 1));
}

}  // namespace

// The part of one head in one page:
//   SlotRows
//   u32 links[kPageSlots][trail[n_hashes][kTrail] | bucket[n_hashes], padded]   whole cache lines

std::size_t LshState::head_bytes(std::size_t d_k, std::size_t d_v, KvType type, std::size_t n_hashes) {
  return SlotRows(type, d_k, d_v).bytes() + kPageSlots * link_numbers(n_hashes) * sizeof(std::uint32_t);
}

LshState::LshState(std::size_t n_heads, std::size_t d_k, std::size_t d_v, KvType type, std::size_t n_hashes,
                   std::uint32_t n_buckets, std::size_t max_length)
    : n_heads_(n_heads), n_hashes_(n_hashes), n_buckets_(n_buckets), max_length_(max_length) {
  TERRACE_CHECK(n_heads > 0 && d_k > 0 && d_v > 0 && n_hashes > 0 && n_buckets > 0, kBadArgument,
                "an LSH state needs heads, channels, hash rounds and buckets");
  TERRACE_CHECK(max_length < kNone, kBadArgument,
                "an LSH state holds fewer than 2^32 - 1 slots, asked for " + std::to_string(max_length));
  rows_ = SlotRows(type, d_k, d_v);
  links_offset_ = rows_.bytes();
  link_numbers_ = link_numbers(n_hashes);
  head_bytes_ = head_bytes(d_k, d_v, type, n_hashes);
  pages_ = PageStore(n_heads * head_bytes_, pages_for(max_length), "the LSH attention state");
  newest_.assign(n_heads * n_hashes * n_buckets, kNone);
}

std::size_t LshState::bytes() const noexcept {
  return pages_for(length_) * pages_.page_bytes() + newest_.size() * sizeof(std::uint32_t);
}

std::uint32_t& LshState::newest_of(std::size_t head, std::size_t round, std::uint32_t bucket) noexcept {
  return newest_[(head * n_hashes_ + round) * n_buckets_ + bucket];
}

std::uint32_t LshState::newest(std::size_t head, std::size_t round, std::uint32_t bucket) const noexcept {
  return newest_[(head * n_hashes_ + round) * n_buckets_ + bucket];
}

void LshState::commit_next(std::size_t n) const noexcept {
  for (std::size_t page = pages_for(length_); page < pages_for(length_ + n); ++page) pages_.commit(page);
}

void LshState::write(std::size_t head, std::size_t slot, const float* key, const float* value,
                     const std::uint32_t* buckets) noexcept {
  rows_.write(key, value, slot % kPageSlots, writable_part(head, slot));
  link(head, slot, buckets);
}

void LshState::link(std::size_t head, std::size_t slot, const std::uint32_t* buckets) noexcept {
  auto* const numbers = const_cast<std::uint32_t*>(links(head, slot));
  for (std::size_t round = 0; round < n_hashes_; ++round) {
    numbers[n_hashes_ * kTrail + round] = buckets[round];
    std::uint32_t& newest = newest_of(head, round, buckets[round]);
    std::uint32_t* const own = numbers + round * kTrail;
    own[0] = newest;
    if (newest == kNone) {
      std::fill_n(own + 1, kTrail - 1, kNone);
    } else {
      std::copy_n(trail(head, newest, round), kTrail - 1, own + 1);
    }
    newest = static_cast<std::uint32_t>(slot);
  }
}

void LshState::truncate(std::size_t length) {
  if (length >= length_) return;
  for (std::size_t slot = length_; slot-- > length;) {
    for (std::size_t head = 0; head < n_heads_; ++head) {
      for (std::size_t round = 0; round < n_hashes_; ++round) {
        newest_of(head, round, bucket(head, slot, round)) = trail(head, slot, round)[0];
      }
    }
  }
  try {
    pages_.truncate(length / kPageSlots, length % kPageSlots != 0);
  } catch (...) {
    relink(length, length_);
    throw;
  }
  length_ = length;
}

void LshState::relink(std::size_t begin, std::size_t end) noexcept {
  for (std::size_t slot = begin; slot < end; ++slot) {
    for (std::size_t head = 0; head < n_heads_; ++head) {
      for (std::size_t round = 0; round < n_hashes_; ++round) {
        newest_of(head, round, bucket(head, slot, round)) = static_cast<std::uint32_t>(slot);
      }
    }
  }
}

LshState LshState::fork() const {
  LshState child;
  child.n_heads_ = n_heads_;
  child.n_hashes_ = n_hashes_;
  child.n_buckets_ = n_buckets_;
  child.max_length_ = max_length_;
  child.length_ = length_;
  child.attends_all_ = attends_all_;
  child.rows_ = rows_;
  child.links_offset_ = links_offset_;
  child.link_numbers_ = link_numbers_;
  child.head_bytes_ = head_bytes_;
  child.newest_ = newest_;
  child.pages_ = pages_.fork(length_ / kPageSlots, length_ % kPageSlots != 0);
  return child;
}

void LshState::save(ByteSink& sink) const {
  for (const std::uint64_t value :
       {kStateTag, std::uint64_t{n_heads_}, std::uint64_t{rows_.d_k()}, std::uint64_t{rows_.d_v()},
        static_cast<std::uint64_t>(rows_.type()), std::uint64_t{n_hashes_}, std::uint64_t{n_buckets_},
        std::uint64_t{length_}}) {
    write_u64(sink, value);
  }
  for (std::size_t begin = 0; begin < length_; begin += kPageSlots) {
    const std::size_t n = std::min(kPageSlots, length_ - begin);
    for (std::size_t head = 0; head < n_heads_; ++head) {
      write_array(sink, key(head, begin), n * rows_.row_bytes());
      for (std::size_t round = 0; round < n_hashes_; ++round) {
        std::uint32_t buckets[kPageSlots];
        for (std::size_t i = 0; i < n; ++i) buckets[i] = bucket(head, begin + i, round);
        write_array(sink, buckets, n);
      }
    }
  }
}

void LshState::load(ByteSource& source) {
  truncate(0);
  expect_u64(source, kStateTag, "kind of the LSH state");
  expect_u64(source, n_heads_, "number of LSH heads");
  expect_u64(source, rows_.d_k(), "width of an LSH key");
  expect_u64(source, rows_.d_v(), "width of an LSH value");
  expect_u64(source, static_cast<std::uint64_t>(rows_.type()), "type of LSH keys and values");
  expect_u64(source, n_hashes_, "number of hash rounds");
  expect_u64(source, n_buckets_, "number of buckets");
  const auto length =
      static_cast<std::size_t>(read_u64(source, max_length_, "number of remembered positions"));
  std::vector<std::uint32_t> ids(n_hashes_ * kPageSlots), of_slot(n_hashes_);
  try {
    for (std::size_t begin = 0; begin < length; begin += kPageSlots) {
      const std::size_t n = std::min(kPageSlots, length - begin);
      for (std::size_t head = 0; head < n_heads_; ++head) {
        read_array(source, writable_part(head, begin), n * rows_.row_bytes());
        for (std::size_t round = 0; round < n_hashes_; ++round)
          read_array(source, ids.data() + round * kPageSlots, n);
        for (std::size_t i = 0; i < n; ++i) {
          for (std::size_t round = 0; round < n_hashes_; ++round) {
            of_slot[round] = ids[round * kPageSlots + i];
            TERRACE_CHECK(of_slot[round] < n_buckets_, kBadFile,
                          "state: LSH bucket " + std::to_string(of_slot[round]) + " of position " +
                              std::to_string(begin + i) + ", expected less than " +
                              std::to_string(n_buckets_));
          }
          link(head, begin + i, of_slot.data());
        }
      }
    }
  } catch (...) {
    std::fill(newest_.begin(), newest_.end(), kNone);
    throw;
  }
  length_ = length;
}

}  // namespace terrace
