// SPDX-License-Identifier: Apache-2.0
#include "models/random_weights.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "engine/dtype.h"
#include "engine/error.h"

namespace terrace {
namespace {

constexpr std::size_t kLevels = 4096;
constexpr std::size_t kElementsPerWord = 4;
constexpr int kBitsPerElement = 16;
constexpr float kQ8Steps = 127;
constexpr float kQ4Steps = 7;  // -7..7: symmetric, so that the mean stays 0; the format's -8 is left out

/// Inverse of the normal distribution function, by bisection of the complementary error function.
double normal_quantile(double p) {
  double low = -6;
  double high = 6;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < p ? low : high) = middle;
  }
  return (low + high) / 2;
}

const std::vector<float>& quantiles() {
  static const std::vector<float> table = [] {
    std::vector<float> z(kLevels);
    for (std::size_t i = 0; i < kLevels / 2; ++i) {
      z[i] = static_cast<float>(normal_quantile((static_cast<double>(i) + 0.5) / kLevels));
      z[kLevels - 1 - i] = -z[i];  // exactly symmetric: the mean of all levels is 0
    }
    return z;
  }();
  return table;
}

/// Steele, Lea and Flood's SplitMix64: a bijection whose outputs for an arithmetic progression of inputs look
/// random.
constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15U;

inline std::uint64_t splitmix64(std::uint64_t z) noexcept {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

inline std::size_t level(std::uint64_t word, std::size_t i) noexcept {
  return (word >> (kBitsPerElement * i)) & (kLevels - 1);
}

}  // namespace

RandomWeights::RandomWeights(std::uint64_t seed, std::string_view tensor, DType dtype, std::uint64_t columns,
                             const InitialValue& initial)
    : key_(XXH3_64bits_withSeed(tensor.data(), tensor.size(), seed)),
      dtype_(dtype),
      columns_(columns),
      run_(initial.run) {
  const std::vector<float>& z = quantiles();
  const bool quantized = is_quantized(dtype);
  TERRACE_CHECK(!quantized || initial.mean == 0, kBadArgument, "quantised random weights have mean 0");
  if (quantized) {
    const float n_steps = dtype == DType::kQ8 ? kQ8Steps : kQ4Steps;
    const float step = z.back() / n_steps;
    steps_.resize(kLevels);
    for (std::size_t i = 0; i < kLevels; ++i) steps_[i] = static_cast<std::int8_t>(std::lround(z[i] / step));
    for (const float std : initial.std) scale_.push_back(step * std);
    return;
  }
  for (const float std : initial.std) {
    std::vector<float>& table = f32_.emplace_back(kLevels);
    for (std::size_t i = 0; i < kLevels; ++i) table[i] = initial.mean + std * z[i];
    if (dtype != DType::kBf16) continue;
    std::transform(table.begin(), table.end(), bf16_.emplace_back(kLevels).begin(), f32_to_bf16);
  }
}

template <class T>
void RandomWeights::fill_elements(std::uint64_t first_word, const T* table, T* out) const noexcept {
  const std::size_t n_words = columns_ / kElementsPerWord;
  std::uint64_t counter = key_ + first_word * kGolden;
  for (std::size_t k = 0; k < n_words; ++k, counter += kGolden) {
    const std::uint64_t word = splitmix64(counter);
    for (std::size_t i = 0; i < kElementsPerWord; ++i) out[kElementsPerWord * k + i] = table[level(word, i)];
  }
  const std::uint64_t last = splitmix64(counter);
  for (std::size_t c = kElementsPerWord * n_words; c < columns_; ++c)
    out[c] = table[level(last, c % kElementsPerWord)];
}

void RandomWeights::fill_q4(std::uint64_t first_word, const std::int8_t* table,
                            std::byte* out) const noexcept {
  constexpr std::size_t kHalf = kQ4Columns / 2;
  std::array<std::uint8_t, kQ4Columns> nibbles;
  std::uint64_t counter = key_ + first_word * kGolden;
  for (std::size_t run = 0; run < columns_ / kQ4Columns; ++run) {
    for (std::size_t c = 0; c < kQ4Columns; c += kElementsPerWord, counter += kGolden) {
      const std::uint64_t word = splitmix64(counter);
      for (std::size_t i = 0; i < kElementsPerWord; ++i) {
        nibbles[c + i] = static_cast<std::uint8_t>(table[level(word, i)] + kQ4Zero);
      }
    }
    for (std::size_t b = 0; b < kHalf; ++b) {
      out[kHalf * run + b] = static_cast<std::byte>(nibbles[b] | nibbles[kHalf + b] << 4);
    }
  }
}

void RandomWeights::fill_row(std::uint64_t row, std::byte* data, std::byte* scale) const noexcept {
  const std::uint64_t words_per_row = (columns_ + kElementsPerWord - 1) / kElementsPerWord;
  const std::uint64_t first_word = row * words_per_row;
  const std::size_t kind = row / run_ % std::max(f32_.size(), scale_.size());
  switch (dtype_) {
    case DType::kF32:
      fill_elements(first_word, f32_[kind].data(), reinterpret_cast<float*>(data));
      return;
    case DType::kBf16:
      fill_elements(first_word, bf16_[kind].data(), reinterpret_cast<std::uint16_t*>(data));
      return;
    case DType::kQ8:
      fill_elements(first_word, steps_.data(), reinterpret_cast<std::int8_t*>(data));
      std::memcpy(scale, &scale_[kind], sizeof(float));
      return;
    case DType::kQ4: {
      fill_q4(first_word, steps_.data(), data);
      const std::uint16_t bits = f32_to_bf16(scale_[kind]);
      for (std::size_t group = 0; group < columns_ / kQ4Group; ++group) {
        std::memcpy(scale + group * sizeof bits, &bits, sizeof bits);
      }
      return;
    }
  }
}

}  // namespace terrace
