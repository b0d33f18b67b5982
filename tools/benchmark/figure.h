// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/benchmark/row.h"
#include "tools/benchmark/variants.h"

namespace terrace::tools {

/// The decode rows as an SVG chart of milliseconds per token: against the values of `sweep` if there is one,
/// else against context length or threads if they differ, else one bar per row with the prediction marked.
std::string bench_svg(const std::vector<BenchRow>& rows, const std::optional<Sweep>& sweep);

}  // namespace terrace::tools
