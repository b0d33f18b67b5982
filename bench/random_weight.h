// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/dtype.h"
#include "engine/memory.h"
#include "engine/tensor.h"

namespace terrace::bench {

/// Uniform values in [-1, 1], the same ones for a seed (xorshift64: a benchmark fills gigabytes).
class FastRandom {
 public:
  explicit FastRandom(std::uint64_t seed) noexcept : state_(seed * 0x9e3779b97f4a7c15U + 1) {}
  std::uint64_t bits() noexcept {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  float uniform() noexcept { return static_cast<float>(bits() >> 40) * 0x1p-23F - 1.0F; }

 private:
  std::uint64_t state_;
};

inline std::vector<float> random_floats(std::size_t n, std::uint64_t seed) {
  FastRandom random(seed);
  std::vector<float> values(n);
  for (float& v : values) v = random.uniform();
  return values;
}

/// A random weight matrix of any dtype with values of about +-1 / sqrt(cols), in memory of its own.
class RandomWeight {
 public:
  RandomWeight(DType dtype, std::size_t rows, std::size_t cols, std::uint64_t seed)
      : data_(rows * row_bytes(dtype, cols), "benchmark weights"),
        scale_(rows * row_scale_bytes(dtype, cols) + 1, "benchmark scales"),
        view_{data_.data(), scale_.data(), rows, cols, cols, dtype} {
    FastRandom random(seed);
    const float size = 1.7F / std::sqrt(static_cast<float>(cols));
    switch (dtype) {
      case DType::kF32:
        for (float& w : data_.as<float>()) w = size * random.uniform();
        break;
      case DType::kBf16:
        for (std::uint16_t& w : data_.as<std::uint16_t>()) w = f32_to_bf16(size * random.uniform());
        break;
      case DType::kQ8:
        for (std::int8_t& w : data_.as<std::int8_t>())
          w = static_cast<std::int8_t>(random.bits() % 255) - 127;
        for (std::size_t r = 0; r < rows; ++r) scale_.as<float>()[r] = size / 127.0F;
        break;
      case DType::kQ4:
        for (std::uint8_t& w : data_.as<std::uint8_t>()) w = static_cast<std::uint8_t>(random.bits());
        for (std::size_t i = 0; i < rows * cols / kQ4Group; ++i) {
          scale_.as<std::uint16_t>()[i] = f32_to_bf16(size / 8.0F);
        }
        break;
    }
  }

  const WeightView& view() const noexcept { return view_; }

 private:
  VirtualBuffer data_;
  VirtualBuffer scale_;
  WeightView view_;
};

}  // namespace terrace::bench
