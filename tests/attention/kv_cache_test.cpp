// SPDX-License-Identifier: Apache-2.0
#include "attention/kv_cache.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/naive_attention.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr std::size_t kHeads = 2, kDk = 3, kDv = 5;
constexpr std::size_t kWideDk =
    70;  // whole squares of an open group, and channels beside them, in every type

/// A cache and, beside it, what it should hold.
struct Checked {
  KvCache cache;
  std::vector<std::vector<float>> rows;  // key, then value, of every slot

  Checked(KvType type, std::size_t max_length, std::size_t d_k = kDk)
      : cache(kHeads, d_k, kDv, type, max_length) {}
  Checked(KvCache c, std::vector<std::vector<float>> r) : cache(std::move(c)), rows(std::move(r)) {}

  std::size_t d_k() const { return cache.d_k(); }
  void append(const Exec& exec, std::size_t n, std::uint32_t seed) {
    const std::size_t k_width = kHeads * d_k(), v_width = kHeads * kDv;
    const auto k = random_floats(n * k_width, seed), v = random_floats(n * v_width, seed + 1);
    append(exec, rows_of(k, k_width), rows_of(v, v_width));
  }
  void append(const Exec& exec, ConstRows k, ConstRows v) {
    cache.append(exec, k, v);
    for (std::size_t t = 0; t < k.n; ++t) {
      std::vector<float> row(k.row(t), k.row(t) + k.width);
      row.insert(row.end(), v.row(t), v.row(t) + v.width);
      rows.push_back(std::move(row));
    }
  }
  void truncate(std::size_t n) {
    cache.truncate(n);
    rows.resize(std::min(n, rows.size()));
  }
  Checked fork() const { return {cache.fork(), rows}; }

  float key(const std::byte* part, const float* scales, std::size_t slot, std::size_t d, bool open) const {
    if (cache.type() == KvType::kQ8) {
      const std::size_t at =
          open ? open_q8_key_index(slot, d / kQuad, d_k()) : q8_key_index(slot, d / kQuad, d_k());
      return static_cast<float>(static_cast<std::int8_t>(part[at + d % kQuad])) * scales[slot];
    }
    if (cache.type() == KvType::kQ4) {
      const std::size_t at =
          open ? open_q4_key_index(slot, d / kOctet, d_k()) : q4_key_index(slot, d / kOctet, d_k());
      return nibble(part[at + d % kQuad], d / kQuad % 2) *
             scale4(part + q4_key_scale_index(slot, d / kQ4Group, d_k()));
    }
    return stored(part, open ? open_key_index(slot, d, d_k()) : key_index(slot, d, d_k()));
  }
  float value(const std::byte* part, const float* scales, std::size_t slot, std::size_t d) const {
    if (cache.type() == KvType::kQ8) {
      return static_cast<float>(static_cast<std::int8_t>(part[q8_value_index(slot, d, kDv)])) *
             scales[kPageSlots + slot];
    }
    if (cache.type() == KvType::kQ4) {
      const std::size_t g = d / kQ4Group;
      return nibble(part[q4_value_index(slot, g, d % kLanes)], d / kLanes % 2) *
             scale4(part + q4_value_scale_index(slot, g));
    }
    return stored(part, slot * padded_width(kDv) + d);
  }
  static float nibble(std::byte at, std::size_t half) {
    return static_cast<float>(std::to_integer<int>(at >> (4 * half) & std::byte{15}) - 8);
  }
  static float scale4(const std::byte* at) {
    std::uint16_t bits;
    std::memcpy(&bits, at, sizeof bits);
    return std::bit_cast<float>(std::uint32_t{bits} << 16);
  }
  float stored(const std::byte* at, std::size_t i) const {
    if (cache.type() == KvType::kF32) return reinterpret_cast<const float*>(at)[i];
    return std::bit_cast<float>(std::uint32_t{reinterpret_cast<const std::uint16_t*>(at)[i]} << 16);
  }
  /// True if every slot holds what was appended.
  bool holds() const {
    if (cache.length() != rows.size()) return false;
    for (std::size_t s = 0; s < rows.size(); ++s) {
      const auto middle = rows[s].begin() + static_cast<std::ptrdiff_t>(kHeads * d_k());
      const auto k = kept_as(cache.type(), {rows[s].begin(), middle}, d_k());
      const auto v = kept_as(cache.type(), {middle, rows[s].end()}, kDv);
      for (std::size_t h = 0; h < kHeads; ++h) {
        const std::size_t page = s / kPageSlots, slot = s % kPageSlots;
        const float* scales = cache.type() == KvType::kQ8 ? cache.scales(page, h) : nullptr;
        const bool open = s >= rows.size() / kLanes * kLanes;
        for (std::size_t d = 0; d < d_k(); ++d) {
          if (key(cache.keys(page, h), scales, slot, d, open) != k[h * d_k() + d]) return false;
        }
        for (std::size_t d = 0; d < kDv; ++d) {
          if (value(cache.values(page, h), scales, slot, d) != v[h * kDv + d]) return false;
        }
      }
    }
    return true;
  }
  std::vector<std::byte> saved() const {
    MemorySink sink;
    cache.save(sink);
    return {sink.bytes().begin(), sink.bytes().end()};
  }
};

TEST_CASE("a cache holds what was appended, in calls of any size") {
  TestExec exec(2);
  for (const KvType type : kKvTypes) {
    Checked checked(type, 700);
    for (const std::size_t n : {1UL, 5UL, 121UL, 1UL, 1UL, 300UL, 128UL, 127UL, 16UL}) {
      checked.append(exec.get(), n, static_cast<std::uint32_t>(n));
    }
    CHECK(checked.cache.length() == 700);
    CHECK(checked.holds());
    // Of a slot: keys of 3 channels (q8: a quad and its scale; q4: half an octet more than they fill, and its
    // scale), values of 5 channels, which take the place of 16 (q4: 32).
    const std::size_t slot_bytes = type == KvType::kF32    ? 4 * kDk + 4 * 16
                                   : type == KvType::kBf16 ? 2 * kDk + 2 * 16
                                   : type == KvType::kQ8   ? (4 + 4) + (16 + 4)
                                                           : (4 + 2) + (16 + 2);
    CHECK(checked.cache.bytes() == 6 * kHeads * kPageSlots * slot_bytes);
  }
}

TEST_CASE("a cache holds what was appended and saves the same bytes, wherever the calls are cut") {
  TestExec exec(2);
  constexpr std::size_t kLength = 150;
  for (const KvType type : kKvTypes) {
    for (const std::size_t d_k : {kDk, kWideDk}) {
      const auto k = random_floats(kLength * kHeads * d_k, 1), v = random_floats(kLength * kHeads * kDv, 2);
      const ConstRows keys = rows_of(k, kHeads * d_k), values = rows_of(v, kHeads * kDv);
      Checked one_by_one(type, kLength, d_k);
      std::vector<std::vector<std::byte>> expected{one_by_one.saved()};
      for (std::size_t t = 0; t < kLength; ++t) {
        one_by_one.append(exec.get(), keys.slice(t, 1), values.slice(t, 1));
        REQUIRE(one_by_one.holds());
        expected.push_back(one_by_one.saved());
      }
      for (std::size_t first = 0; first < 40; ++first) {
        for (const std::size_t second : {1UL, 2UL, 15UL, 16UL, 17UL, 33UL, kLength - first}) {
          Checked cut(type, kLength, d_k);
          cut.append(exec.get(), keys.slice(0, first), values.slice(0, first));
          cut.append(exec.get(), keys.slice(first, second), values.slice(first, second));
          REQUIRE(cut.holds());
          REQUIRE(cut.saved() == expected[first + second]);
        }
      }
    }
  }
}

TEST_CASE("truncated at any slot, a cache is one that never went further") {
  TestExec exec(1);
  constexpr std::size_t kLength = 150;
  for (const KvType type : kKvTypes) {
    const auto k = random_floats(kLength * kHeads * kWideDk, 1), v = random_floats(kLength * kHeads * kDv, 2);
    const ConstRows keys = rows_of(k, kHeads * kWideDk), values = rows_of(v, kHeads * kDv);
    Checked full(type, kLength, kWideDk), shorter(type, kLength, kWideDk);
    full.append(exec.get(), keys, values);
    for (std::size_t n = 0; n <= kLength; ++n) {
      if (n > 0) shorter.append(exec.get(), keys.slice(n - 1, 1), values.slice(n - 1, 1));
      Checked cut = full.fork();
      const Checked sibling = full.fork();
      cut.truncate(n);
      REQUIRE(cut.holds());
      REQUIRE(cut.saved() == shorter.saved());
      cut.truncate(n - n % 4);  // on, perhaps inside the open group
      REQUIRE(cut.holds());
      Checked child = cut.fork();
      child.append(exec.get(), std::min<std::size_t>(21, kLength - cut.rows.size()), 3);
      REQUIRE(child.holds());
      cut.append(exec.get(), std::min<std::size_t>(5, kLength - cut.rows.size()), 5);
      REQUIRE(cut.holds());
      REQUIRE(sibling.holds());
      REQUIRE(full.holds());
    }
  }
}

TEST_CASE("no group is open in a saved state") {
  TestExec exec(1);
  for (const KvType type : kKvTypes) {
    for (const std::size_t n : {5UL, 16UL, 77UL, 128UL}) {
      Checked checked(type, 128, kWideDk);
      checked.append(exec.get(), n, 1);
      const auto bytes = checked.saved();
      const KvRows rows(type, kWideDk, kDv);
      constexpr std::size_t kHeader = 6 * sizeof(std::uint64_t);
      REQUIRE(bytes.size() == kHeader + kHeads * rows.bytes());
      for (std::size_t h = 0; h < kHeads; ++h) {
        std::vector<std::byte> part(
            bytes.begin() + static_cast<std::ptrdiff_t>(kHeader + h * rows.bytes()),
            bytes.begin() + static_cast<std::ptrdiff_t>(kHeader + (h + 1) * rows.bytes()));
        const auto* scales = reinterpret_cast<const float*>(part.data());
        bool same = true;
        for (std::size_t s = 0; s < n; ++s) {
          const auto k =
              kept_as(type, {checked.rows[s].begin(), checked.rows[s].end() - kHeads * kDv}, kWideDk);
          for (std::size_t d = 0; d < kWideDk; ++d) {
            const float found = checked.key(part.data() + rows.keys_offset(), scales, s, d, false);
            same = same && found == k[h * kWideDk + d];
          }
        }
        CHECK(same);
      }
    }
  }
}

TEST_CASE("bf16 rounds to nearest even and keeps NaN and infinity") {
  TestExec exec(1);
  KvCache cache(1, 1, 1, KvType::kBf16, 8);
  const auto nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const std::vector<float> x{1.00390625F, 1.01171875F, std::bit_cast<float>(0x7FFFFFFFU), nan,
                             inf,         -inf,        std::bit_cast<float>(0x7F800001U), -0.0F};
  cache.append(exec.get(), rows_of(x, 1), rows_of(x, 1));
  const auto* k = reinterpret_cast<const std::uint16_t*>(cache.keys(0, 0));
  CHECK(k[0] == 0x3F80);  // half way: to even
  CHECK(k[1] == 0x3F82);
  for (const std::size_t i : {2U, 3U, 6U}) CHECK(std::isnan(std::bit_cast<float>(std::uint32_t{k[i]} << 16)));
  CHECK(k[4] == 0x7F80);
  CHECK(k[5] == 0xFF80);
  CHECK(k[7] == 0x8000);
}

TEST_CASE("fork and truncate in any order leave every cache with its own content") {
  TestExec exec(1);
  std::mt19937 random(7);
  for (const KvType type : kKvTypes) {
    for (int round = 0; round < 20; ++round) {
      const std::size_t d_k = round % 5 == 0 ? kWideDk : kDk;
      std::vector<std::unique_ptr<Checked>> all;
      all.push_back(std::make_unique<Checked>(type, 640, d_k));
      for (std::uint32_t step = 0; step < 40; ++step) {
        Checked& one = *all[random() % all.size()];
        switch (random() % 5) {
          case 0:
          case 1:
            one.append(exec.get(), random() % std::min<std::size_t>(200, 641 - one.rows.size()), step);
            break;
          case 2:
            one.truncate(random() % (one.rows.size() + 1));
            break;
          case 3:
            one.truncate(one.rows.size() / kPageSlots * kPageSlots);  // exactly to the end of a page
            break;
          default:
            if (all.size() < 6) {
              all.push_back(std::make_unique<Checked>(one.fork()));
            } else {
              all.erase(all.begin() + static_cast<std::ptrdiff_t>(random() % all.size()));
            }
        }
        for (const auto& each : all) REQUIRE(each->holds());
      }
    }
  }
}

TEST_CASE("a fork shares the full pages") {
  TestExec exec(1);
  Checked parent(KvType::kF32, 400);
  parent.append(exec.get(), 300, 1);
  Checked child = parent.fork();
  CHECK(child.cache.keys(0, 0) == parent.cache.keys(0, 0));
  CHECK(child.cache.keys(1, 1) == parent.cache.keys(1, 1));
  CHECK(child.cache.keys(2, 0) != parent.cache.keys(2, 0));
  const std::byte* parents_page = parent.cache.keys(1, 0);
  child.truncate(200);  // the child leaves the shared page...
  CHECK(child.cache.keys(1, 0) != parents_page);
  parent.truncate(290);  // ...the parent stays on its own tail
  CHECK(parent.cache.keys(1, 0) == parents_page);
  CHECK(child.holds());
  CHECK(parent.holds());
}

TEST_CASE("a state comes back as it was saved, and equal states are equal bytes") {
  TestExec exec(1);
  for (const KvType type : kKvTypes) {
    for (const std::size_t n : {0UL, 1UL, 128UL, 333UL, 336UL}) {
      Checked checked(type, 400, kWideDk), longer(type, 400, kWideDk);
      checked.append(exec.get(), n, 3);
      longer.append(exec.get(), n, 3);
      longer.append(exec.get(), 60, 9);
      longer.truncate(n);
      const auto bytes = checked.saved();
      CHECK(longer.saved() == bytes);
      Checked loaded(type, 400, kWideDk);
      loaded.append(exec.get(), 77, 5);
      MemorySource source(bytes);
      loaded.cache.load(source);
      loaded.rows = checked.rows;
      CHECK(source.left() == 0);
      CHECK(loaded.holds());
      loaded.append(exec.get(), 10, 11);
      CHECK(loaded.holds());
    }
  }
}

TEST_CASE("loading into a fork leaves the parent alone") {
  TestExec exec(1);
  Checked parent(KvType::kF32, 300), other(KvType::kF32, 300);
  parent.append(exec.get(), 200, 1);
  other.append(exec.get(), 250, 2);
  Checked child = parent.fork();
  const auto bytes = other.saved();
  MemorySource source(bytes);
  child.cache.load(source);
  child.rows = other.rows;
  CHECK(child.holds());
  CHECK(parent.holds());
}

TEST_CASE("a state of another shape, too long, or cut off is refused and leaves the cache empty") {
  TestExec exec(1);
  Checked checked(KvType::kF32, 300);
  checked.append(exec.get(), 200, 3);
  const auto bytes = checked.saved();
  const auto load_into = [&](KvCache cache, std::span<const std::byte> from) {
    MemorySource source(from);
    try {
      cache.load(source);
    } catch (...) {
      CHECK(cache.length() == 0);
      throw;
    }
  };
  expect_error(ErrorCode::kBadFile, "number of K/V heads is 2, expected 3",
               [&] { load_into(KvCache(3, kDk, kDv, KvType::kF32, 300), bytes); });
  expect_error(ErrorCode::kBadFile, "width of a key",
               [&] { load_into(KvCache(2, 4, kDv, KvType::kF32, 300), bytes); });
  expect_error(ErrorCode::kBadFile, "width of a value",
               [&] { load_into(KvCache(2, kDk, 4, KvType::kF32, 300), bytes); });
  expect_error(ErrorCode::kBadFile, "saved as f32, expected bf16",
               [&] { load_into(KvCache(2, kDk, kDv, KvType::kBf16, 300), bytes); });
  expect_error(ErrorCode::kBadFile, "saved as f32, expected q8",
               [&] { load_into(KvCache(2, kDk, kDv, KvType::kQ8, 300), bytes); });
  expect_error(ErrorCode::kBadFile, "number of cached positions is 200, expected at most 199",
               [&] { load_into(KvCache(2, kDk, kDv, KvType::kF32, 199), bytes); });
  for (const std::size_t n : {0UL, 7UL, 8UL, 47UL, 48UL, 5000UL, bytes.size() - 1}) {
    expect_error(ErrorCode::kBadFile, "ends too early",
                 [&] { load_into(KvCache(2, kDk, kDv, KvType::kF32, 300), std::span(bytes).first(n)); });
  }
}

TEST_CASE("q8 keeps a scale per head and slot; NaN counts as 0, and what is all zero stays so") {
  TestExec exec(1);
  KvCache cache(2, 3, 2, KvType::kQ8, 8);
  const auto nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> k{1.27F, -0.635F, 0.004F, 254.0F, nan, -3.0F}, v{0, 0, -1.0F, 0.5F};
  cache.append(exec.get(), rows_of(k, 6), rows_of(v, 4));
  const auto bytes = [&](std::size_t head) {
    return reinterpret_cast<const std::int8_t*>(cache.keys(0, head));
  };
  CHECK(cache.scales(0, 0)[0] == 1.27F / 127);
  CHECK(cache.scales(0, 1)[0] == 2);
  CHECK(bytes(0)[0] == 127);
  CHECK(bytes(0)[1] == -64);  // half way: to even
  CHECK(bytes(0)[2] == 0);
  CHECK(bytes(1)[0] == 127);
  CHECK(bytes(1)[1] == 0);
  CHECK(bytes(1)[2] == -2);  // half way: to even
  CHECK(cache.scales(0, 0)[kPageSlots] == 0);
  CHECK(static_cast<int>(cache.values(0, 1)[0]) == 256 - 127);
  for (const KvType type : kKvTypes) CHECK(parse_kv_type(kv_type_name(type)) == type);
  expect_error(ErrorCode::kBadArgument, "expected f32, bf16, q8 or q4, found 'q3'",
               [] { parse_kv_type("q3"); });
}

TEST_CASE("a cache without heads or channels is refused") {
  expect_error(ErrorCode::kBadArgument, "at least one head", [] { KvCache(0, 1, 1, KvType::kF32, 1); });
  expect_error(ErrorCode::kBadArgument, "too wide", [] { KvCache(SIZE_MAX / 2, 8, 8, KvType::kF32, 1); });
  expect_error(ErrorCode::kBadArgument, "at most 4096 channels, found 4097",
               [] { KvCache(1, 8, 4097, KvType::kQ8, 1); });
  expect_error(ErrorCode::kBadArgument, "q4 keys and values take heads of at most 4096 channels, found 4097",
               [] { KvCache(1, 4097, 8, KvType::kQ4, 1); });
  expect_error(ErrorCode::kOutOfMemory, "keys and values",
               [] { KvCache(1, 64, 64, KvType::kF32, SIZE_MAX / 2); });
}

}  // namespace
}  // namespace terrace::test
