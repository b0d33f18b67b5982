// SPDX-License-Identifier: Apache-2.0
#include "attention/threefry.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace terrace {
namespace {

/// Inverse error function in single precision: two polynomials in w = -log(1 - x^2), of Giles 2010,
/// "Approximating the erfinv function", as XLA evaluates them.
float inverse_erf(float x) noexcept {
  constexpr std::array kCentral = {2.81022636e-08F,  3.43273939e-07F, -3.5233877e-06F,
                                   -4.39150654e-06F, 0.00021858087F,  -0.00125372503F,
                                   -0.00417768164F,  0.246640727F,    1.50140941F};
  constexpr std::array kTail = {-0.000200214257F, 0.000100950558F, 0.00134934322F,
                                -0.00367342844F,  0.00573950773F,  -0.0076224613F,
                                0.00943887047F,   1.00167406F,     2.83297682F};
  const float w = -std::log1p(-x * x);
  const bool near = w < 5.0F;
  const auto& coefficients = near ? kCentral : kTail;
  const float at = near ? w - 2.5F : std::sqrt(w) - 3.0F;
  float p = coefficients[0];
  for (std::size_t i = 1; i < coefficients.size(); ++i) p = coefficients[i] + p * at;
  return p * x;
}

/// out[i] = number(word i). Counters are 0..n-1, padded with one zero to an even number; the first half goes
/// through lane 0, the second through lane 1.
template <class T, class Number>
void generate(const ThreefryKey& key, std::span<T> out, Number&& number) noexcept {
  const std::size_t n = out.size();
  const std::size_t half = (n + 1) / 2;
  for (std::size_t i = 0; i < half; ++i) {
    const std::size_t second = half + i;
    const auto words = threefry_block(key, static_cast<std::uint32_t>(i),
                                      second < n ? static_cast<std::uint32_t>(second) : 0U);
    out[i] = number(words[0]);
    if (second < n) out[second] = number(words[1]);
  }
}

}  // namespace

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

void threefry_bits(const ThreefryKey& key, std::span<std::uint32_t> out) noexcept {
  generate(key, out, [](std::uint32_t word) { return word; });
}

ThreefryKey threefry_split(const ThreefryKey& key, std::size_t n, std::size_t index) noexcept {
  // The words 2 * index and 2 * index + 1 of 2 * n random words.
  const auto word = [&](std::size_t i) {
    const auto lane = static_cast<std::uint32_t>(i % n);
    return threefry_block(key, lane, lane + static_cast<std::uint32_t>(n))[i / n];
  };
  return {word(2 * index), word(2 * index + 1)};
}

void threefry_uniform(const ThreefryKey& key, float low, float high, std::span<float> out) noexcept {
  generate(key, out, [low, high](std::uint32_t word) {
    const float unit = std::bit_cast<float>(word >> 9 | 0x3F800000U) - 1.0F;
    return std::max(low, unit * (high - low) + low);
  });
}

void threefry_normal(const ThreefryKey& key, std::span<float> out) noexcept {
  threefry_uniform(key, std::nextafter(-1.0F, 0.0F), 1.0F, out);
  for (float& x : out) x = 1.41421356F * inverse_erf(x);
}

}  // namespace terrace
