// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace terrace {

/// One way to run a model, as far as a choice within a budget of time looks at it.
struct BudgetPoint {
  std::uint64_t active_parameters = 0;  ///< read per token
  double seconds = 0;                   ///< per token
  unsigned n_threads = 1;
};

struct BudgetChoice {
  std::size_t index = 0;  ///< of the point
  bool fits = false;
};

/// Of the points within `budget_seconds` the one with the most active parameters, then the fastest, then the
/// one with the fewest threads; if none is, the fastest of all. No quality is assumed: what a narrower width
/// or a coarser type costs in quality is to be measured. Throws Error{kBadArgument} for no points and for a
/// budget that is not positive.
BudgetChoice choose_within(std::span<const BudgetPoint> points, double budget_seconds);

}  // namespace terrace
