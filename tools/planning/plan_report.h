// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/budget.h"
#include "tools/planning/plan_points.h"

namespace terrace::tools {

/// What `terrace plan` says: the points, which of them is looked at in detail, and why that one.
struct PlanReport {
  const PlanRequest& request;
  const std::vector<PlanPoint>& points;
  const PlanPoint& shown;
  std::optional<double> budget_ms;  ///< --budget
  bool fits = true;                 ///< the point shown is within it

  /// Tables in Markdown and a few lines of text.
  std::string text() const;
  std::string json() const;
};

}  // namespace terrace::tools
