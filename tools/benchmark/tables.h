// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "tools/benchmark/row.h"

namespace terrace::tools {

// Markdown for people; no rows give no table.

/// Every row with speed, spread, traffic, prediction and the ratio to the dense twin.
std::string speed_table(const std::vector<BenchRow>& rows);

/// The layout of the paper's Table 1: milliseconds per token and per block of the decoder, with the ratios to
/// the dense rows of the same dtype, threads and depth, parameters and prediction. Rows with a profile only.
std::string table1(const std::vector<BenchRow>& rows);

/// Where a token's time goes: milliseconds and share by zone, synchronisation. Rows with a profile only.
std::string profile_table(const std::vector<BenchRow>& rows);

}  // namespace terrace::tools
