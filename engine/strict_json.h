// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "engine/error.h"

namespace terrace {

/// Deepest nesting of arrays and objects that a model file may hold; real ones need five.
inline constexpr int kJsonMaxDepth = 32;

/// Parses JSON text that came from a file: valid UTF-8, nothing after the value, no key twice in one object,
/// at most kJsonMaxDepth levels. Throws Error{code} that starts with `what` and gives the offset of the first
/// wrong byte.
nlohmann::json parse_strict_json(std::string_view text, std::string_view what,
                                 ErrorCode code = ErrorCode::kBadFile);

}  // namespace terrace
