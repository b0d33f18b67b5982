// SPDX-License-Identifier: Apache-2.0
#include "engine/largest.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace terrace {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

Largest largest_of(const std::vector<float>& z, std::size_t first = 0) {
  Largest largest;
  largest.take(z.data(), z.size(), first);
  return largest;
}

std::vector<std::uint32_t> k_largest(const std::vector<float>& z, std::size_t k) {
  std::vector<std::uint32_t> scratch(z.size()), largest(k);
  take_largest(z.data(), z.size(), k, scratch.data(), largest.data());
  return largest;
}

/// Few different values, so that most are tied, and some NaN and infinities.
std::vector<float> tied_numbers(std::size_t n, unsigned seed) {
  constexpr float kValues[] = {-1.0F, 0.0F, 2.0F, 2.0F, 3.0F, kNan, -kInfinity, -kInfinity};
  std::mt19937 random(seed);
  std::vector<float> z(n);
  for (float& v : z) v = kValues[random() % std::size(kValues)];
  return z;
}

TEST_CASE("Largest: of equal numbers the first, in a run and across runs") {
  CHECK(largest_of({1, 7, 7, 3}).index == 1);
  std::vector<float> z(300, 0.0F);
  z[70] = z[71] = z[200] = 5.0F;
  CHECK(largest_of(z).index == 70);
  CHECK(largest_of(z).value == 5.0F);
  CHECK(largest_of(z, 1000).index == 1070);
}

TEST_CASE("Largest: NaN and -inf are never taken") {
  CHECK(largest_of({}).index == Largest::kNowhere);
  CHECK(largest_of({kNan, -kInfinity, kNan}).index == Largest::kNowhere);
  CHECK(largest_of({kNan, -kInfinity, -3e38F, kNan}).index == 2);
  CHECK(largest_of({1, kInfinity, kNan, kInfinity}).index == 1);
  Largest largest = largest_of({1.0F});
  largest.take(Largest{kNan, 0});
  CHECK(largest.value == 1.0F);
}

TEST_CASE("Largest: any length and any cut give what a plain loop gives") {
  for (std::size_t n = 0; n <= 200; ++n) {
    CAPTURE(n);
    const std::vector<float> z = tied_numbers(n, static_cast<unsigned>(n));
    Largest expected;
    for (std::size_t i = 0; i < n; ++i) {
      if (z[i] > expected.value) expected = {z[i], static_cast<std::uint32_t>(i)};
    }
    CHECK(largest_of(z).index == expected.index);
    const std::size_t cut = n / 3;
    const Largest head = largest_of({z.begin(), z.begin() + static_cast<std::ptrdiff_t>(cut)});
    const Largest tail = largest_of({z.begin() + static_cast<std::ptrdiff_t>(cut), z.end()}, cut);
    Largest forwards = head, backwards = tail;
    forwards.take(tail);
    backwards.take(head);
    CHECK(forwards.index == expected.index);
    CHECK(backwards.index == expected.index);
    Largest tail_first;
    tail_first.take(z.data() + cut, n - cut, cut);
    tail_first.take(z.data(), cut, 0);
    CHECK(tail_first.index == expected.index);
  }
}

TEST_CASE("take_largest: in the order of their indices, the first ones on ties, a NaN last") {
  using Indices = std::vector<std::uint32_t>;
  CHECK(k_largest({5, 9, 7, 9}, 2) == Indices{1, 3});
  CHECK(k_largest({4, 4, 4, 4}, 3) == Indices{0, 1, 2});
  CHECK(k_largest({kNan, 1, kNan, 2}, 2) == Indices{1, 3});
  CHECK(k_largest({1, kNan, 2}, 3) == Indices{0, 1, 2});
  CHECK(k_largest({kNan, kNan}, 1) == Indices{0});
}

TEST_CASE("take_largest: agrees with a stable sort") {
  for (std::size_t n = 1; n <= 70; ++n) {
    const std::vector<float> z = tied_numbers(n, static_cast<unsigned>(n));
    std::vector<std::uint32_t> order(n);
    std::iota(order.begin(), order.end(), 0U);
    const auto value = [&](std::uint32_t i) { return std::isnan(z[i]) ? -kInfinity : z[i]; };
    std::stable_sort(order.begin(), order.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return value(a) > value(b); });
    for (std::size_t k = 1; k <= n; k += 1 + k / 4) {
      CAPTURE(n);
      CAPTURE(k);
      std::vector<std::uint32_t> expected(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k));
      std::sort(expected.begin(), expected.end());
      CHECK(k_largest(z, k) == expected);
    }
  }
}

}  // namespace
}  // namespace terrace
