// SPDX-License-Identifier: Apache-2.0
#include "engine/checksum.h"

#include <xxhash.h>

#include "engine/error.h"

namespace terrace {

void Checksum::FreeState::operator()(XXH3_state_s* state) const noexcept { XXH3_freeState(state); }

Checksum::Checksum() : state_(XXH3_createState()) {
  TERRACE_CHECK(state_ != nullptr, kOutOfMemory, "no memory for the state of a checksum");
  XXH3_64bits_reset(state_.get());
}

void Checksum::update(std::span<const std::byte> bytes) noexcept {
  if (!bytes.empty()) XXH3_64bits_update(state_.get(), bytes.data(), bytes.size());
}

std::uint64_t Checksum::digest() const noexcept { return XXH3_64bits_digest(state_.get()); }

std::string checksum_to_hex(std::uint64_t digest) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string text(16, '0');
  for (std::size_t i = 0; i < 16; ++i) text[i] = kHex[(digest >> (60 - 4 * i)) & 15U];
  return text;
}

std::optional<std::uint64_t> checksum_from_hex(std::string_view text) noexcept {
  if (text.size() != 16) return std::nullopt;
  std::uint64_t digest = 0;
  for (const char c : text) {
    std::uint64_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<std::uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<std::uint64_t>(c - 'a') + 10;
    } else {
      return std::nullopt;
    }
    digest = digest << 4 | digit;
  }
  return digest;
}

}  // namespace terrace
