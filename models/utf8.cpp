// SPDX-License-Identifier: Apache-2.0
#include "models/utf8.h"

#include <cstdint>

namespace terrace {
namespace {

constexpr Utf8Step kIllFormed{0xFFFD, 1, false};

std::uint8_t byte_at(std::string_view text, std::size_t i) { return static_cast<std::uint8_t>(text[i]); }

/// Length that the first byte announces; 0 for a byte that begins nothing.
std::size_t announced_length(std::uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;  // continuation bytes; C0 and C1 could only begin overlong forms
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  return lead < 0xF5 ? 4 : 0;
}

/// Whether `second` may follow `lead`: this one byte decides overlong forms, surrogates and the upper limit.
bool second_byte_fits(std::uint8_t lead, std::uint8_t second) {
  const std::uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const std::uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  return low <= second && second <= high;
}

/// Whether more bytes could still make a well-formed sequence of `text`, which is none yet.
bool is_unfinished(std::string_view text) {
  const std::size_t length = announced_length(byte_at(text, 0));
  if (text.size() >= length) return false;
  if (text.size() >= 2 && !second_byte_fits(byte_at(text, 0), byte_at(text, 1))) return false;
  return text.size() < 3 || (byte_at(text, 2) & 0xC0) == 0x80;
}

}  // namespace

Utf8Step read_utf8(std::string_view text) noexcept {
  const std::uint8_t lead = byte_at(text, 0);
  const std::size_t length = announced_length(lead);
  if (length == 1) return {lead, 1, true};
  if (length == 0 || text.size() < length || !second_byte_fits(lead, byte_at(text, 1))) return kIllFormed;
  char32_t code_point = lead & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte_at(text, i) & 0xC0) != 0x80) return kIllFormed;
    code_point = code_point << 6 | (byte_at(text, i) & 0x3Fu);
  }
  return {code_point, length, true};
}

void append_utf8(char32_t c, std::string& out) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    tail(0);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    tail(6), tail(0);
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    tail(12), tail(6), tail(0);
  }
}

std::optional<std::size_t> find_ill_formed_utf8(std::string_view text) noexcept {
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text.substr(at));
    if (!step.well_formed) return at;
    at += step.length;
  }
  return std::nullopt;
}

std::string to_valid_utf8(std::string_view text) {
  std::string out;
  Utf8Stream stream;
  stream.push(text, out);
  stream.finish(out);
  return out;
}

void Utf8Stream::push(std::string_view bytes, std::string& out) {
  held_ += bytes;
  std::size_t at = 0;
  while (at < held_.size()) {
    const std::string_view rest = std::string_view(held_).substr(at);
    const Utf8Step step = read_utf8(rest);
    if (!step.well_formed && is_unfinished(rest)) break;
    out += step.well_formed ? rest.substr(0, step.length) : kReplacementCharacter;
    at += step.length;
  }
  held_.erase(0, at);
}

void Utf8Stream::finish(std::string& out) {
  for (std::size_t i = 0; i < held_.size(); ++i) out += kReplacementCharacter;
  held_.clear();
}

}  // namespace terrace
