// SPDX-License-Identifier: Apache-2.0
#include "models/budget.h"

#include <fmt/format.h>

#include "engine/error.h"

namespace terrace {
namespace {

bool is_faster(const BudgetPoint& a, const BudgetPoint& b) noexcept {
  return a.seconds != b.seconds ? a.seconds < b.seconds : a.n_threads < b.n_threads;
}

bool is_wider(const BudgetPoint& a, const BudgetPoint& b) noexcept {
  return a.active_parameters != b.active_parameters ? a.active_parameters > b.active_parameters
                                                    : is_faster(a, b);
}

}  // namespace

BudgetChoice choose_within(std::span<const BudgetPoint> points, double budget_seconds) {
  TERRACE_CHECK(!points.empty(), kBadArgument, "a choice within a budget needs points, found none");
  TERRACE_CHECK(budget_seconds > 0, kBadArgument,
                fmt::format("a budget of time per token: expected more than 0 s, found {}", budget_seconds));
  BudgetChoice choice;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const bool fits = points[i].seconds <= budget_seconds;
    const BudgetPoint& best = points[choice.index];
    if (fits && (!choice.fits || is_wider(points[i], best))) choice = {i, true};
    if (!choice.fits && is_faster(points[i], best)) choice.index = i;
  }
  return choice;
}

}  // namespace terrace
