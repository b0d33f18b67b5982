// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace terrace::tools {

/// A document and a line's end; `indent` -1 for one line. JSON is UTF-8: for other bytes, as file names may
/// hold them, stands U+FFFD.
inline std::string json_text(const nlohmann::ordered_json& json, int indent = 2) {
  return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace terrace::tools
