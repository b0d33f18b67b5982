// SPDX-License-Identifier: Apache-2.0
#include "attention/kv_cache.h"

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "engine/checked.h"
#include "engine/error.h"

namespace terrace {
namespace {

std::uint16_t to_bf16(float x) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x)
    return static_cast<std::uint16_t>(bits >> 16 | 0x40U);  // rounding could turn a NaN into infinity
  return static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16);
}

void store(float x, float* to) noexcept { *to = x; }
void store(float x, std::uint16_t* to) noexcept { *to = to_bf16(x); }

/// Writes rows [begin, end) of one head into its part of one page. Row t goes to slot first_slot + t - begin.
template <class T>
void write_rows(ConstRows k, ConstRows v, std::size_t head, std::size_t d_k, std::size_t d_v,
                std::size_t begin, std::size_t end, std::size_t first_slot, std::byte* keys,
                std::byte* values) noexcept {
  T* const key = reinterpret_cast<T*>(keys);
  T* const value = reinterpret_cast<T*>(values);
  for (std::size_t d = 0; d < d_k; ++d) {
    for (std::size_t t = begin; t < end; ++t) {
      store(k.row(t)[head * d_k + d], key + key_index(first_slot + t - begin, d, d_k));
    }
  }
  for (std::size_t t = begin; t < end; ++t) {
    const float* from = v.row(t) + head * d_v;
    T* to = value + (first_slot + t - begin) * padded_width(d_v);
    for (std::size_t d = 0; d < d_v; ++d) store(from[d], to + d);
  }
}

constexpr std::uint64_t kStateTag = 0x31'766B'7274;  // "trkv1": what load expects first

}  // namespace

const char* kv_type_name(KvType type) noexcept { return type == KvType::kF32 ? "f32" : "bf16"; }

KvCache::KvCache(std::size_t n_heads, std::size_t d_k, std::size_t d_v, KvType type, std::size_t max_length)
    : n_heads_(n_heads), d_k_(d_k), d_v_(d_v), type_(type), max_length_(max_length) {
  TERRACE_CHECK(n_heads > 0 && d_k > 0 && d_v > 0, kBadArgument,
                "a K/V cache needs at least one head and one channel; found " + std::to_string(n_heads) +
                    " heads, d_k " + std::to_string(d_k) + ", d_v " + std::to_string(d_v));
  constexpr std::size_t most = std::size_t{1} << 40;
  TERRACE_CHECK(n_heads < most / kPageSlots / 4 / (d_k + d_v + kLanes), kBadArgument,
                "K/V rows of " + std::to_string(n_heads) + " heads are too wide");
  keys_bytes_ = kPageSlots * d_k * kv_type_bytes(type);
  head_bytes_ = keys_bytes_ + kPageSlots * padded_width(d_v) * kv_type_bytes(type);
  pages_ = PageStore(n_heads * head_bytes_, (max_length + kPageSlots - 1) / kPageSlots, "keys and values");
}

std::size_t KvCache::bytes() const noexcept { return n_pages_in_use() * pages_.page_bytes(); }

void KvCache::append(const Exec& exec, ConstRows k, ConstRows v) noexcept {
  TERRACE_DCHECK(k.n == v.n && k.width == n_heads_ * d_k_ && v.width == n_heads_ * d_v_);
  TERRACE_DCHECK(k.n <= max_length_ - length_);
  // Keys are transposed: every element of a few keys has a cache line of its own.
  const std::size_t work = d_k_ * std::max(k.n * sizeof(float), kCacheLine) + k.n * d_v_ * sizeof(float);
  exec.for_range(n_heads_, 1, work, [&](std::size_t begin_head, std::size_t end_head) {
    for (std::size_t head = begin_head; head < end_head; ++head) {
      for (std::size_t t = 0; t < k.n;) {
        const std::size_t page = (length_ + t) / kPageSlots;
        const std::size_t slot = (length_ + t) % kPageSlots;
        const std::size_t end = std::min(k.n, t + kPageSlots - slot);
        std::byte* keys = pages_.writable_page(page) + head * head_bytes_;
        if (type_ == KvType::kF32) {
          write_rows<float>(k, v, head, d_k_, d_v_, t, end, slot, keys, keys + keys_bytes_);
        } else {
          write_rows<std::uint16_t>(k, v, head, d_k_, d_v_, t, end, slot, keys, keys + keys_bytes_);
        }
        t = end;
      }
    }
  });
  length_ += k.n;
}

void KvCache::truncate(std::size_t length) {
  if (length >= length_) return;
  pages_.truncate(length / kPageSlots, length % kPageSlots != 0);
  length_ = length;
}

KvCache KvCache::fork() const {
  KvCache child;
  child.n_heads_ = n_heads_;
  child.d_k_ = d_k_;
  child.d_v_ = d_v_;
  child.type_ = type_;
  child.max_length_ = max_length_;
  child.length_ = length_;
  child.keys_bytes_ = keys_bytes_;
  child.head_bytes_ = head_bytes_;
  child.pages_ = pages_.fork(length_ / kPageSlots, length_ % kPageSlots != 0);
  return child;
}

void KvCache::save(ByteSink& sink) const {
  for (const std::uint64_t value :
       {kStateTag, std::uint64_t{n_heads_}, std::uint64_t{d_k_}, std::uint64_t{d_v_},
        std::uint64_t{kv_type_bytes(type_)}, std::uint64_t{length_}}) {
    write_u64(sink, value);
  }
  const std::size_t full = length_ / kPageSlots;
  for (std::size_t page = 0; page < full; ++page) write_array(sink, pages_.page(page), pages_.page_bytes());
  const std::size_t rest = length_ % kPageSlots;
  if (rest == 0) return;
  // Slots past the end may hold what was truncated: equal states must give equal bytes.
  std::vector<std::byte> last(pages_.page(full), pages_.page(full) + pages_.page_bytes());
  const std::size_t element = kv_type_bytes(type_);
  for (std::size_t head = 0; head < n_heads_; ++head) {
    std::byte* keys = last.data() + head * head_bytes_;
    for (std::size_t slot = rest; slot < kPageSlots; ++slot) {
      for (std::size_t d = 0; d < d_k_; ++d) {
        std::fill_n(keys + key_index(slot, d, d_k_) * element, element, std::byte{0});
      }
    }
    std::byte* values = keys + keys_bytes_;
    const std::size_t row = padded_width(d_v_) * element;
    std::fill(values + rest * row, values + kPageSlots * row, std::byte{0});
  }
  write_array(sink, last.data(), last.size());
}

void KvCache::load(ByteSource& source) {
  truncate(0);
  expect_u64(source, kStateTag, "kind of the K/V cache");
  expect_u64(source, n_heads_, "number of K/V heads");
  expect_u64(source, d_k_, "width of a key");
  expect_u64(source, d_v_, "width of a value");
  expect_u64(source, kv_type_bytes(type_), "bytes of a K/V element");
  const auto length = static_cast<std::size_t>(read_u64(source, max_length_, "number of cached positions"));
  for (std::size_t page = 0; page * kPageSlots < length; ++page) {
    read_array(source, pages_.writable_page(page), pages_.page_bytes());
  }
  length_ = length;
}

}  // namespace terrace
