// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace terrace {

/// U+FFFD in UTF-8: stands for every byte that is part of no well-formed sequence.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

/// One step of reading UTF-8.
struct Utf8Step {
  char32_t code_point;  ///< U+FFFD when not well-formed
  std::size_t length;   ///< bytes consumed; 1 when not well-formed
  bool well_formed;
};

/// Reads the character at the front of `text` (not empty). Overlong forms, surrogates and values above
/// U+10FFFF are not well-formed (Unicode 15, table 3-7); an ill-formed sequence costs one byte, as in
/// SentencePiece.
Utf8Step read_utf8(std::string_view text) noexcept;

/// Appends the UTF-8 form of a scalar value (not a surrogate, at most U+10FFFF).
void append_utf8(char32_t code_point, std::string& out);

/// Position of the first byte that is part of no well-formed sequence; nullopt if there is none.
std::optional<std::size_t> find_ill_formed_utf8(std::string_view text) noexcept;

/// `text` with kReplacementCharacter in place of every such byte.
std::string to_valid_utf8(std::string_view text);

/// to_valid_utf8 for text that arrives in parts cut anywhere: holds back at most three bytes of an unfinished
/// sequence.
class Utf8Stream {
 public:
  /// Appends to `out` what is certain after `bytes`.
  void push(std::string_view bytes, std::string& out);
  /// Appends what was held back, one replacement character per byte, and starts anew.
  void finish(std::string& out);

 private:
  std::string held_;
};

}  // namespace terrace
