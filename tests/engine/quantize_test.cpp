// SPDX-License-Identifier: Apache-2.0
#include "engine/quantize.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "engine/dtype.h"

namespace terrace {
namespace {

std::vector<float> normal_row(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> row(n);
  for (float& w : row) w = normal(random);
  return row;
}

/// The values that a stored q4 row stands for, straight from docs/model-file.md.
std::vector<float> q4_values(const std::vector<std::uint8_t>& q, const std::vector<std::uint16_t>& scale) {
  std::vector<float> values(2 * q.size());
  for (std::size_t j = 0; j < values.size(); ++j) {
    const std::uint8_t byte = q[j / 64 * 32 + j % 32];
    const int nibble = j % 64 < 32 ? byte & 15 : byte >> 4;
    values[j] = bf16_to_f32(scale[j / 32]) * static_cast<float>(nibble - 8);
  }
  return values;
}

std::vector<float> through_q4(const std::vector<float>& row) {
  std::vector<std::uint8_t> q(row.size() / 2);
  std::vector<std::uint16_t> scale(row.size() / 32);
  quantize_row_q4(row, q.data(), scale.data());
  return q4_values(q, scale);
}

double mean_square_error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return sum / static_cast<double>(a.size());
}

TEST_CASE("quantize_row_q8: the largest value lands on 127 and none is off by more than half a step") {
  const auto row = normal_row(1000, 1);
  std::vector<std::int8_t> q(row.size());
  const float scale = quantize_row_q8(row, q.data());
  int largest = 0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    largest = std::max(largest, std::abs(q[i]));
    CHECK(std::abs(row[i] - scale * q[i]) <= 0.5001F * scale);
  }
  CHECK(largest == 127);
}

TEST_CASE("quantize_row_q8: values that are steps already come back unchanged") {
  std::vector<float> row;
  for (int v = -127; v <= 127; ++v) row.push_back(0.25F * static_cast<float>(v));
  std::vector<std::int8_t> q(row.size());
  CHECK(quantize_row_q8(row, q.data()) == 0.25F);
  for (int v = -127; v <= 127; ++v) CHECK(q[static_cast<std::size_t>(v + 127)] == v);
}

TEST_CASE("quantize: a row of zeros, and of values too small for a scale, gives zeros") {
  for (const float value : {0.0F, 1e-45F}) {
    const std::vector<float> row(64, value);
    std::vector<std::int8_t> q(row.size(), 1);
    CHECK(std::isfinite(quantize_row_q8(row, q.data())));
    CHECK(std::all_of(q.begin(), q.end(), [](int v) { return v == 0; }));
    for (const float w : through_q4(row)) CHECK(std::abs(w) <= 1e-44F);
  }
}

TEST_CASE("quantize_row_q4: values on a grid of 16 steps come back unchanged") {
  std::vector<float> row(128);
  for (std::size_t j = 0; j < row.size(); ++j)
    row[j] = 0.5F * static_cast<float>(static_cast<int>(j % 16) - 8);
  CHECK(through_q4(row) == row);
}

TEST_CASE("quantize_row_q4: loses less than a plain absmax / 7 scale") {
  double ours = 0;
  double plain = 0;
  for (unsigned seed = 0; seed < 20; ++seed) {
    const auto row = normal_row(256, seed);
    ours += mean_square_error(row, through_q4(row));
    std::vector<float> simple(row.size());
    for (std::size_t g = 0; g < row.size(); g += 32) {
      float largest = 0;
      for (std::size_t j = g; j < g + 32; ++j) largest = std::max(largest, std::abs(row[j]));
      const float scale = bf16_to_f32(f32_to_bf16(largest / 7));
      for (std::size_t j = g; j < g + 32; ++j) {
        simple[j] = scale * std::clamp(std::nearbyint(row[j] / scale), -8.0F, 7.0F);
      }
    }
    plain += mean_square_error(row, simple);
  }
  MESSAGE("mean square error relative to absmax / 7: ", ours / plain);
  CHECK(ours < 0.9 * plain);
}

TEST_CASE("store_row: every dtype takes the bytes that tensor.h says") {
  const auto row = normal_row(64, 3);
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kQ8, DType::kQ4}) {
    CAPTURE(dtype_name(dtype));
    constexpr std::byte kUntouched{0xA5};
    alignas(4) std::array<std::byte, 64 * 4 + 1> data;
    alignas(4) std::array<std::byte, 16> scale;
    data.fill(kUntouched);
    scale.fill(kUntouched);
    store_row(dtype, row, data.data(), scale.data());
    CHECK(data[row_bytes(dtype, row.size())] == kUntouched);
    CHECK(scale[row_scale_bytes(dtype, row.size())] == kUntouched);
  }
}

}  // namespace
}  // namespace terrace
