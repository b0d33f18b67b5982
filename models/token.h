// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace terrace {

/// Index into a model's vocabulary.
using TokenId = std::int32_t;

}  // namespace terrace
