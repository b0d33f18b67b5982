// SPDX-License-Identifier: Apache-2.0
#include "engine/row_codec.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/support/random.h"

namespace terrace {
namespace {

struct Stored {
  std::vector<std::byte> data;
  std::vector<std::byte> scale;
  std::vector<float> back;
};

Stored store(DType dtype, const std::vector<float>& row) {
  Stored s;
  s.data.resize(row_bytes(dtype, row.size()));
  s.scale.resize(row_scale_bytes(dtype, row.size()));
  s.back.resize(row.size());
  encode_row(dtype, row.data(), row.size(), s.data.data(), s.scale.data());
  decode_row(dtype, s.data.data(), s.scale.data(), row.size(), s.back.data());
  return s;
}

double relative_error(const std::vector<float>& row, const std::vector<float>& back) {
  double weight = 0;
  double error = 0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    weight += static_cast<double>(row[i]) * row[i];
    error += (static_cast<double>(row[i]) - back[i]) * (row[i] - back[i]);
  }
  return std::sqrt(error / weight);
}

TEST_CASE("row codec: f32 keeps every bit, the others stay within half a step") {
  for (const std::size_t n : {64U, 128U, 320U}) {
    CAPTURE(n);
    const std::vector<float> row = test::random_f32(n, /*seed=*/n);
    CHECK(store(DType::kF32, row).back == row);
    float largest = 0;
    for (const float w : row) largest = std::max(largest, std::abs(w));
    const Stored bf16 = store(DType::kBf16, row);
    const Stored q8 = store(DType::kQ8, row);
    for (std::size_t i = 0; i < n; ++i) {
      CHECK(std::abs(bf16.back[i] - row[i]) <= std::abs(row[i]) / 256);
      CHECK(std::abs(q8.back[i] - row[i]) <= largest / 254 * 1.0001F);
    }
  }
}

TEST_CASE("row codec: the chosen q4 scale beats the plain one of the largest element") {
  const std::vector<float> row = test::random_f32(640, 5);
  double plain = 0;
  double weight = 0;
  for (std::size_t g = 0; g < row.size(); g += kQ4Group) {
    float largest = 0;
    for (std::size_t i = 0; i < kQ4Group; ++i) largest = std::max(largest, std::abs(row[g + i]));
    for (std::size_t i = 0; i < kQ4Group; ++i) {
      const float step = largest / 7;
      const double back = std::nearbyint(row[g + i] / step) * step;
      plain += (row[g + i] - back) * (row[g + i] - back);
      weight += static_cast<double>(row[g + i]) * row[g + i];
    }
  }
  CHECK(relative_error(row, store(DType::kQ4, row).back) < 0.95 * std::sqrt(plain / weight));
}

TEST_CASE("row codec: zeros stay zeros, and what is stored once is stored the same again") {
  const std::vector<float> zeros(128, 0.0F);
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kQ8, DType::kQ4}) {
    CAPTURE(dtype_name(dtype));
    CHECK(store(dtype, zeros).back == zeros);
    const Stored once = store(dtype, test::random_f32(128, 9));
    if (dtype == DType::kQ4) continue;  // its scale is fitted, so a second fit may find another optimum
    CHECK(relative_error(once.back, store(dtype, once.back).back) < 1e-6);
  }
}

}  // namespace
}  // namespace terrace
