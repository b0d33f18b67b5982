// SPDX-License-Identifier: Apache-2.0
#include "models/budget.h"

#include <doctest/doctest.h>

#include <vector>

#include "tests/support/expect_error.h"

namespace terrace {
namespace {

using Points = std::vector<BudgetPoint>;

TEST_CASE("Within a budget the most active parameters count, then time, then fewer threads") {
  const Points points = {{100, 1.0, 1}, {300, 3.0, 1}, {200, 2.0, 2}, {300, 2.5, 4}, {300, 2.5, 2}};
  const auto chosen = [&](double budget) {
    const BudgetChoice choice = choose_within(points, budget);
    CHECK(choice.fits);
    return choice.index;
  };
  CHECK(chosen(10) == 4);
  CHECK(chosen(3) == 4);
  CHECK(chosen(2.5) == 4);
  CHECK(chosen(2.4) == 2);
  CHECK(chosen(1.0) == 0);
}

TEST_CASE("When nothing fits the fastest point is named, whatever its width") {
  const Points points = {{300, 3.0, 1}, {100, 1.0, 2}, {100, 1.0, 1}, {200, 2.0, 1}};
  const BudgetChoice choice = choose_within(points, 0.5);
  CHECK_FALSE(choice.fits);
  CHECK(choice.index == 2);
}

TEST_CASE("A choice without points or without time is refused") {
  test::expect_error(ErrorCode::kBadArgument, "found none", [] { choose_within({}, 1); });
  const Points points = {{1, 1, 1}};
  test::expect_error(ErrorCode::kBadArgument, "expected more than 0 s", [&] { choose_within(points, 0); });
}

}  // namespace
}  // namespace terrace
