// SPDX-License-Identifier: Apache-2.0
#include "engine/quantize.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <span>
#include <string>
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

TEST_CASE("quantize: a row of zeros, and of values too small for a scale, gives zeros and a scale of +0") {
  for (const float value : {0.0F, -0.0F, 1e-45F, -1e-40F, 1e-37F}) {
    CAPTURE(value);
    const std::vector<float> row(64, value);
    std::vector<std::int8_t> q(row.size(), 1);
    CHECK(std::bit_cast<std::uint32_t>(quantize_row_q8(row, q.data())) == 0);
    CHECK(std::all_of(q.begin(), q.end(), [](int v) { return v == 0; }));
    std::vector<std::uint8_t> nibbles(row.size() / 2);
    std::vector<std::uint16_t> scale(row.size() / kQ4Group, 1);
    quantize_row_q4(row, nibbles.data(), scale.data());
    CHECK(scale == std::vector<std::uint16_t>(scale.size(), 0));
    CHECK(nibbles == std::vector<std::uint8_t>(nibbles.size(), 0x88));
  }
}

TEST_CASE("quantize: rows of any finite size keep their relative error") {
  const auto row = normal_row(64, 5);
  const auto relative = [](const std::vector<float>& a, const std::vector<float>& b) {
    double error = 0;
    double square = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      error += std::pow(static_cast<double>(a[i]) - b[i], 2);
      square += std::pow(static_cast<double>(a[i]), 2);
    }
    return std::sqrt(error / square);
  };
  const double expected = relative(row, through_q4(row));
  for (const float size : {1e-33F, 1e-20F, 1e20F, 1e38F}) {  // the squares of these are no floats
    CAPTURE(size);
    std::vector<float> scaled = row;
    for (float& w : scaled) w *= size / 4;
    CHECK(relative(scaled, through_q4(scaled)) == doctest::Approx(expected).epsilon(0.05));
    std::vector<std::int8_t> q(row.size());
    const float scale = quantize_row_q8(scaled, q.data());
    for (std::size_t i = 0; i < row.size(); ++i) {
      CHECK(std::abs(scaled[i] - scale * static_cast<float>(q[i])) <= 0.5001F * scale);
    }
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

using Draw = float (*)(std::mt19937&);

struct Distribution {
  const char* name;
  Draw draw;
};

const Distribution kDistributions[] = {
    {"normal", [](std::mt19937& random) { return std::normal_distribution<float>()(random); }},
    {"uniform", [](std::mt19937& random) { return std::uniform_real_distribution<float>(-1, 1)(random); }},
    {"heavy tails", [](std::mt19937& random) { return std::student_t_distribution<float>(3)(random); }},
};

std::vector<float> row_of(const Distribution& distribution, std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> row(n);
  for (float& w : row) w = distribution.draw(random);
  return row;
}

double squared_error(std::span<const float> row, float scale, float lowest, float highest) {
  double sum = 0;
  for (const float w : row)
    sum +=
        std::pow(w - static_cast<double>(scale) * std::clamp(std::nearbyint(w / scale), lowest, highest), 2);
  return sum;
}

float largest_magnitude(std::span<const float> row) {
  float largest = 0;
  for (const float w : row) largest = std::max(largest, std::abs(w));
  return largest;
}

TEST_CASE("quantize_row_q4: loses at most 1 % more than the best of all bf16 scales") {
  for (const Distribution& distribution : kDistributions) {
    CAPTURE(std::string(distribution.name));
    double ours = 0;
    double best = 0;
    for (unsigned seed = 0; seed < 50; ++seed) {
      const auto row = row_of(distribution, kQ4Columns, seed);
      ours += mean_square_error(row, through_q4(row)) * static_cast<double>(row.size());
      for (std::size_t g = 0; g < row.size(); g += kQ4Group) {
        const auto group = std::span(row).subspan(g, kQ4Group);
        // From a largest value of 30 steps, cut to 7, to one of 2 steps: outside it only gets worse.
        const std::uint16_t first = f32_to_bf16(largest_magnitude(group) / 30);
        const std::uint16_t last = f32_to_bf16(largest_magnitude(group) / 2);
        double least = std::numeric_limits<double>::infinity();
        for (std::uint16_t bits = first; bits <= last; ++bits) {
          for (const float scale : {bf16_to_f32(bits), -bf16_to_f32(bits)})
            least = std::min(least, squared_error(group, scale, -8, 7));
        }
        best += least;
      }
    }
    MESSAGE(std::string(distribution.name), ": squared error over the least possible: ", ours / best);
    CHECK(ours >= best * (1 - 1e-6));
    CHECK(ours <= 1.01 * best);
  }
}

TEST_CASE("quantize_row_q8: cutting the extremes gains little") {
  for (const Distribution& distribution : kDistributions) {
    CAPTURE(std::string(distribution.name));
    double ours = 0;
    double best = 0;
    for (unsigned seed = 0; seed < 10; ++seed) {
      const auto row = row_of(distribution, 512, seed);
      std::vector<std::int8_t> q(row.size());
      ours += squared_error(row, quantize_row_q8(row, q.data()), -127, 127);
      double least = std::numeric_limits<double>::infinity();
      for (float cut = 0.5F; cut <= 1.1F; cut += 0.001F)
        least = std::min(least, squared_error(row, cut * largest_magnitude(row) / 127, -127, 127));
      best += least;
    }
    MESSAGE(std::string(distribution.name), ": squared error over the least possible: ", ours / best);
    CHECK(ours <= 1.1 * best);
  }
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
