// SPDX-License-Identifier: Apache-2.0
#include "tests/support/stored_weight.h"

#include <algorithm>
#include <cmath>

#include "engine/dtype.h"
#include "tests/support/random.h"

namespace terrace::test {

std::vector<float> random_floats(std::size_t n, std::uint64_t seed, float scale) {
  return Random(seed).floats(n, -scale, scale);
}

StoredWeight::StoredWeight(DType dtype, std::size_t rows, std::size_t cols, std::uint64_t seed, float scale)
    : dtype_(dtype), values_(rows, cols) {
  const std::vector<float> w = random_floats(rows * cols, seed, scale);
  switch (dtype) {
    case DType::kF32:
      f32_ = w;
      std::copy(w.begin(), w.end(), values_.data.begin());
      break;
    case DType::kBf16:
      for (std::size_t i = 0; i < w.size(); ++i) {
        bf16_.push_back(f32_to_bf16(w[i]));
        values_.data[i] = bf16_to_f32(bf16_.back());
      }
      break;
    case DType::kQ8:
      store_q8(w);
      break;
    case DType::kQ4:
      store_q4(w);
      break;
  }
}

void StoredWeight::store_q8(const std::vector<float>& w) {
  q8_.resize(w.size());
  for (std::size_t r = 0; r < values_.rows; ++r) {
    const float* const row = w.data() + r * values_.cols;
    float largest = 0.0F;
    for (std::size_t c = 0; c < values_.cols; ++c) largest = std::max(largest, std::fabs(row[c]));
    const float scale = largest / 127.0F;
    q8_scale_.push_back(scale);
    for (std::size_t c = 0; c < values_.cols; ++c) {
      const auto q = static_cast<std::int8_t>(std::lround(row[c] / scale));
      q8_[r * values_.cols + c] = q;
      values_(r, c) = static_cast<double>(scale) * q;
    }
  }
}

void StoredWeight::store_q4(const std::vector<float>& w) {
  q4_.resize(w.size() / 2);
  for (std::size_t i = 0; i < w.size(); i += kQ4Group) {
    float largest = 0.0F;
    for (std::size_t c = 0; c < kQ4Group; ++c) largest = std::max(largest, std::fabs(w[i + c]));
    q4_scale_.push_back(f32_to_bf16(largest / 7.0F));
    const float scale = bf16_to_f32(q4_scale_.back());
    for (std::size_t c = 0; c < kQ4Group; ++c) {
      const auto q = static_cast<int>(std::clamp(std::lround(w[i + c] / scale), -8L, 7L));
      const bool high = i / kQ4Group % 2 == 1;
      q4_[i / kQ4Columns * (kQ4Columns / 2) + c] |= static_cast<std::uint8_t>((q + 8) << (high ? 4 : 0));
      values_.data[i + c] = static_cast<double>(scale) * q;
    }
  }
}

WeightView StoredWeight::view() const noexcept {
  WeightView view{nullptr, nullptr, values_.rows, values_.cols, values_.cols, dtype_};
  switch (dtype_) {
    case DType::kF32:
      view.data = f32_.data();
      break;
    case DType::kBf16:
      view.data = bf16_.data();
      break;
    case DType::kQ8:
      view.data = q8_.data();
      view.scale = q8_scale_.data();
      break;
    case DType::kQ4:
      view.data = q4_.data();
      view.scale = q4_scale_.data();
      break;
  }
  return view;
}

}  // namespace terrace::test
