// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

struct XXH3_state_s;

namespace terrace {

/// 64-bit XXH3 with seed 0, fed in pieces: how the pieces are cut does not change the digest. Detects damage,
/// not malice: anyone can make a file with the checksum they want.
class Checksum {
 public:
  /// Throws Error{kOutOfMemory}.
  Checksum();

  void update(std::span<const std::byte> bytes) noexcept;
  /// Digest of all bytes so far.
  std::uint64_t digest() const noexcept;

 private:
  struct FreeState {
    void operator()(XXH3_state_s* state) const noexcept;
  };
  std::unique_ptr<XXH3_state_s, FreeState> state_;
};

/// 16 lower-case hexadecimal digits, most significant first.
std::string checksum_to_hex(std::uint64_t digest);

/// The inverse; nullopt for anything but exactly 16 lower-case hexadecimal digits.
std::optional<std::uint64_t> checksum_from_hex(std::string_view text) noexcept;

}  // namespace terrace
