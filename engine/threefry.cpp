// SPDX-License-Identifier: Apache-2.0
#include "engine/threefry.h"

#include <bit>

namespace terrace {

std::array<std::uint32_t, 2> threefry_block(const ThreefryKey& key, std::uint32_t x0,
                                            std::uint32_t x1) noexcept {
  constexpr int kRotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const std::array<std::uint32_t, 3> keys = {key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDAU};
  x0 += keys[0];
  x1 += keys[1];
  for (std::uint32_t group = 0; group < 5; ++group) {
    for (const int rotation : kRotations[group & 1]) {
      x0 += x1;
      x1 = std::rotl(x1, rotation) ^ x0;
    }
    x0 += keys[(group + 1) % 3];
    x1 += keys[(group + 2) % 3] + group + 1;
  }
  return {x0, x1};
}

ThreefryKey threefry_key(std::uint64_t seed) noexcept {
  return {static_cast<std::uint32_t>(seed >> 32), static_cast<std::uint32_t>(seed)};
}

ThreefryKey threefry_split(const ThreefryKey& key, std::size_t n, std::size_t index) noexcept {
  // The words 2 * index and 2 * index + 1 of 2 * n random words.
  const auto word = [&](std::size_t i) {
    const auto lane = static_cast<std::uint32_t>(i % n);
    return threefry_block(key, lane, lane + static_cast<std::uint32_t>(n))[i / n];
  };
  return {word(2 * index), word(2 * index + 1)};
}

}  // namespace terrace
