// SPDX-License-Identifier: Apache-2.0
#include "engine/checked.h"

#include <doctest/doctest.h>

#include <array>
#include <limits>

#include "tests/support/expect_error.h"

namespace terrace {
namespace {

constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();

TEST_CASE("try_* of bytes agree with exact arithmetic for every pair") {
  for (unsigned a = 0; a < 256; ++a) {
    for (unsigned b = 0; b < 256; ++b) {
      const auto x = static_cast<std::uint8_t>(a);
      const auto y = static_cast<std::uint8_t>(b);
      CHECK(try_add(x, y) == (a + b < 256 ? std::optional<std::uint8_t>(a + b) : std::nullopt));
      CHECK(try_mul(x, y) == (a * b < 256 ? std::optional<std::uint8_t>(a * b) : std::nullopt));
      if (b > 0) {
        const unsigned up = (a + b - 1) / b * b;
        CHECK(try_round_up(x, y) == (up < 256 ? std::optional<std::uint8_t>(up) : std::nullopt));
      }
    }
  }
}

TEST_CASE("try_* at the edge of 64 bits") {
  CHECK(try_add(kMax, std::uint64_t{0}) == kMax);
  CHECK_FALSE(try_add(kMax, std::uint64_t{1}));
  CHECK(try_mul(kMax / 2, std::uint64_t{2}) == kMax - 1);
  CHECK_FALSE(try_mul(kMax / 2 + 1, std::uint64_t{2}));
  CHECK(try_round_up(kMax - 63, std::uint64_t{64}) == kMax - 63);
  CHECK_FALSE(try_round_up(kMax - 62, std::uint64_t{64}));
}

TEST_CASE("try_narrow keeps exactly the values that the target has") {
  CHECK(try_narrow<std::int32_t>(std::uint64_t{2147483647}) == 2147483647);
  CHECK_FALSE(try_narrow<std::int32_t>(std::uint64_t{2147483648}));
  CHECK_FALSE(try_narrow<std::uint32_t>(-1));
  CHECK(try_narrow<std::int8_t>(-128) == -128);
  CHECK_FALSE(try_narrow<std::int8_t>(-129));
}

TEST_CASE("try_product: no factor is one, a zero does not hide an overflow of the others") {
  CHECK(try_product({}) == 1);
  CHECK(try_product(std::array<std::uint64_t, 3>{3, 5, 7}) == 105);
  CHECK(try_product(std::array<std::uint64_t, 3>{3, 0, 7}) == 0);
  CHECK_FALSE(try_product(std::array<std::uint64_t, 2>{kMax, 2}));
  CHECK_FALSE(try_product(std::array<std::uint64_t, 3>{kMax, 2, 0}));
  CHECK_FALSE(try_product(std::array<std::uint64_t, 3>{0, kMax, 2}));
}

TEST_CASE("checked_* name the quantity and the numbers") {
  using test::expect_error;
  const auto bad = ErrorCode::kBadFile;
  expect_error(bad, "offset: 18446744073709551615 + 1 is out of range",
               [] { static_cast<void>(checked_add(kMax, std::uint64_t{1}, "offset")); });
  expect_error(bad, "size: 18446744073709551615 * 3",
               [] { static_cast<void>(checked_mul(kMax, std::uint64_t{3}, "size")); });
  expect_error(bad, "end: 18446744073709551615 rounded up to a multiple of 64",
               [] { static_cast<void>(checked_round_up(kMax, std::uint64_t{64}, "end")); });
  expect_error(bad, "count: -1 is out of range",
               [] { static_cast<void>(checked_narrow<std::uint32_t>(-1, "count")); });
  expect_error(bad, "shape: 4294967296 * 4294967296 is out of range", [] {
    const std::array<std::uint64_t, 2> shape{std::uint64_t{1} << 32, std::uint64_t{1} << 32};
    static_cast<void>(checked_product(shape, "shape"));
  });
  CHECK(checked_add(2U, 3U, "sum") == 5U);
  CHECK(checked_mul(2U, 3U, "product") == 6U);
  CHECK(checked_round_up(65U, 64U, "end") == 128U);
  CHECK(checked_narrow<std::uint8_t>(255, "byte") == 255);
}

TEST_CASE("checked_subspan allows exactly the ranges inside") {
  const std::array<std::byte, 8> bytes{};
  CHECK(checked_subspan(bytes, 0, 8, "x").size() == 8);
  CHECK(checked_subspan(bytes, 8, 0, "x").empty());
  test::expect_error(ErrorCode::kBadFile, "x: 1 bytes at offset 8 do not lie inside 8 bytes",
                     [&] { static_cast<void>(checked_subspan(bytes, 8, 1, "x")); });
  test::expect_error(ErrorCode::kBadFile, "do not lie inside",
                     [&] { static_cast<void>(checked_subspan(bytes, 9, 0, "x")); });
  test::expect_error(ErrorCode::kBadFile, "do not lie inside",
                     [&] { static_cast<void>(checked_subspan(bytes, kMax, 2, "x")); });
}

TEST_CASE("checked_read_le reads the first bytes, lowest first") {
  const std::array<std::byte, 9> bytes{std::byte{1}, std::byte{2},    std::byte{3},
                                       std::byte{4}, std::byte{5},    std::byte{6},
                                       std::byte{7}, std::byte{0xff}, std::byte{9}};
  CHECK(checked_read_le<std::uint8_t>(bytes, "x") == 1);
  CHECK(checked_read_le<std::uint32_t>(bytes, "x") == 0x04030201U);
  CHECK(checked_read_le<std::uint64_t>(bytes, "x") == 0xff07060504030201U);
  test::expect_error(ErrorCode::kBadFile, "x: expected 8 bytes, found 7", [&] {
    static_cast<void>(checked_read_le<std::uint64_t>(std::span(bytes).first(7), "x"));
  });
}

}  // namespace
}  // namespace terrace
