// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/dtype.h"

namespace terrace::test {

/// Reproducible random numbers on every platform (SplitMix64: Steele, Lea and Flood 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) noexcept : state_(seed) {}

  std::uint64_t bits() noexcept {
    state_ += 0x9e3779b97f4a7c15U;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }
  /// Uniform in [low, high).
  float uniform(float low, float high) noexcept {
    return low + (high - low) * (static_cast<float>(bits() >> 40) * 0x1p-24F);
  }
  /// Uniform in [low, high].
  int integer(int low, int high) noexcept {
    return low + static_cast<int>(bits() % static_cast<std::uint64_t>(high - low + 1));
  }

  std::vector<float> floats(std::size_t n, float low = -1.0F, float high = 1.0F) {
    std::vector<float> values(n);
    for (float& v : values) v = uniform(low, high);
    return values;
  }
  std::vector<std::uint16_t> bf16(std::size_t n, float low = -1.0F, float high = 1.0F) {
    std::vector<std::uint16_t> values(n);
    for (std::uint16_t& v : values) v = f32_to_bf16(uniform(low, high));
    return values;
  }
  std::vector<std::int8_t> int8(std::size_t n) {
    std::vector<std::int8_t> values(n);
    for (std::int8_t& v : values) v = static_cast<std::int8_t>(integer(-127, 127));
    return values;
  }
  std::vector<std::uint8_t> bytes(std::size_t n) {
    std::vector<std::uint8_t> values(n);
    for (std::uint8_t& v : values) v = static_cast<std::uint8_t>(bits());
    return values;
  }

 private:
  std::uint64_t state_;
};

}  // namespace terrace::test
