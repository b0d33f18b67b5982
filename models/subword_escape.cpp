// SPDX-License-Identifier: Apache-2.0
#include "models/subword_escape.h"

#include <unicode/uchar.h>

#include "models/utf8.h"

namespace terrace {
namespace {

// What the format writes for an escaped number that is no character (a geta mark).
constexpr char32_t kNoCharacter = 0x3013;

/// Value of the digits of "\123"; kNoCharacter for anything that is no Unicode scalar value.
char32_t escaped_character(std::string_view digits) {
  char32_t value = 0;
  for (const char digit : digits) {
    value = value * 10 + static_cast<char32_t>(digit - '0');
    if (value > 0x10FFFF) return kNoCharacter;
  }
  return value >= 0xD800 && value < 0xE000 ? kNoCharacter : value;
}

}  // namespace

bool is_alphanumeric(char32_t c) noexcept {
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & (U_GC_L_MASK | U_GC_N_MASK)) != 0;
}

void SubwordJoiner::push(std::string_view piece, std::string& out) {
  while (!piece.empty()) {
    const Utf8Step step = read_utf8(piece);
    piece.remove_prefix(step.length);
    const char32_t c = step.code_point;
    const bool is_digit = c >= '0' && c <= '9';
    if (escape_.empty()) {
      character(c, out);
    } else if (is_digit) {
      escape_ += static_cast<char>(c);
    } else {
      end_escape(c, out);
    }
  }
}

void SubwordJoiner::finish(std::string& out) {
  flush_escape(out);
  *this = {};
}

/// A character outside escapes.
void SubwordJoiner::character(char32_t c, std::string& out) {
  if (c == '\\') {
    escape_ = "\\";
  } else if (c == '_') {
    if (inside_token_) previous_alphanumeric_ = token_alphanumeric_;
    inside_token_ = false;
  } else {
    write(c, out);
  }
}

/// A character that is no digit, after "\" or "\" and digits.
void SubwordJoiner::end_escape(char32_t c, std::string& out) {
  const bool has_digits = escape_.size() > 1;
  if (!has_digits && (c == 'u' || c == '\\')) {
    escape_.clear();
    write(c == 'u' ? U'_' : U'\\', out);
  } else if (has_digits && c == ';') {
    const char32_t value = escaped_character(std::string_view(escape_).substr(1));
    escape_.clear();
    write(value, out);
  } else {
    flush_escape(out);
    character(c, out);
  }
}

/// What looked like an escape and is none stands for itself.
void SubwordJoiner::flush_escape(std::string& out) {
  for (const char c : escape_) write(static_cast<char32_t>(c), out);
  escape_.clear();
}

/// A character of the text, after unescaping.
void SubwordJoiner::write(char32_t c, std::string& out) {
  if (!inside_token_) {
    token_alphanumeric_ = is_alphanumeric(c);
    if (token_alphanumeric_ && previous_alphanumeric_) out += ' ';
    inside_token_ = true;
  }
  append_utf8(c, out);
}

}  // namespace terrace
