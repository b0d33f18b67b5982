// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace terrace {

/// Whether a character is a letter or a number (Unicode general categories L* and N*).
bool is_alphanumeric(char32_t c) noexcept;

/// Joins the pieces of a subword vocabulary into text as they come: splits at '_', undoes the escapes and
/// puts a space between two tokens that both begin with an alphanumeric character. Holds back an escape until
/// it is complete.
class SubwordJoiner {
 public:
  /// Appends to `out` the text that is certain after `piece` (valid UTF-8).
  void push(std::string_view piece, std::string& out);
  /// Appends an escape that was never completed, as it stands, and starts anew.
  void finish(std::string& out);

 private:
  void character(char32_t c, std::string& out);
  void write(char32_t c, std::string& out);
  void end_escape(char32_t c, std::string& out);
  void flush_escape(std::string& out);

  std::string escape_;                  // "\", or "\" and digits; empty outside escapes
  bool inside_token_ = false;           // a character of the current token has been written
  bool previous_alphanumeric_ = false;  // how the previous token began
  bool token_alphanumeric_ = false;     // how the current token began
};

}  // namespace terrace
