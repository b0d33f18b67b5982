// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace terrace {

/// `text` in single quotes, safe for an error message whatever it holds: bytes outside printable ASCII become
/// \xNN and anything past 80 bytes is cut and marked with "...".
inline std::string quote_text(std::string_view text) {
  constexpr std::size_t kLongest = 80;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "'";
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  out += text.size() > kLongest ? "...'" : "'";
  return out;
}

}  // namespace terrace
