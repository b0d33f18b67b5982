// SPDX-License-Identifier: Apache-2.0
#include "tests/support/naive_attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

namespace terrace::test {

std::vector<float> kept_as(KvType type, std::vector<float> rows, std::size_t d_head) {
  if (type == KvType::kBf16) {
    for (float& x : rows) x = rounded_to_bf16(x);
  }
  for (std::size_t begin = 0; type == KvType::kQ8 && begin < rows.size(); begin += d_head) {
    float largest = 0;
    for (std::size_t d = 0; d < d_head; ++d) largest = std::max(largest, std::abs(rows[begin + d]));
    const float scale = largest / 127.0F;
    for (std::size_t d = 0; d < d_head; ++d) {
      float& x = rows[begin + d];
      x = scale > 0 ? std::nearbyint(x * (1.0F / scale)) * scale : 0;
    }
  }
  for (std::size_t begin = 0; type == KvType::kQ4 && begin < rows.size(); begin += d_head) {
    for (std::size_t g = 0; g < d_head; g += 32) {
      const std::span<float> group(rows.data() + begin + g, std::min<std::size_t>(32, d_head - g));
      const float low = std::ranges::min(group), high = std::ranges::max(group);
      const float extreme = std::abs(low) > std::abs(high) ? low : high;
      const float scale = rounded_to_bf16(extreme / -8.0F);
      for (float& x : group) x = scale != 0 ? std::min(7.0F, std::nearbyint(x * (1.0F / scale))) * scale : 0;
    }
  }
  return rows;
}

std::vector<float> queries_for(KvType type, std::vector<float> rows, std::size_t d_head) {
  for (std::size_t begin = 0; type == KvType::kQ4 && begin < rows.size(); begin += d_head) {
    for (std::size_t g = 0; g < d_head; g += 32) {
      const std::span<float> group(rows.data() + begin + g, std::min<std::size_t>(32, d_head - g));
      float largest = 0;
      for (const float x : group) largest = std::max(largest, std::abs(x));
      const float scale = largest / 127.0F;
      for (float& x : group) x = scale > 0 ? std::nearbyint(x * (1.0F / scale)) * scale : 0;
    }
  }
  return rows;
}

Matrix columns(const Matrix& x, std::size_t begin, std::size_t n) {
  Matrix y(x.rows, n);
  for (std::size_t t = 0; t < x.rows; ++t) {
    for (std::size_t c = 0; c < n; ++c) y(t, c) = x(t, begin + c);
  }
  return y;
}

Matrix naive_attention_head(const Matrix& q, const Matrix& k, const Matrix& v, double scale,
                            const Penalty& penalty) {
  Matrix y(q.rows, v.cols);
  for (std::size_t t = 0; t < q.rows; ++t) {
    std::vector<double> score(k.rows);
    double top = -std::numeric_limits<double>::infinity();
    for (std::size_t s = 0; s < k.rows; ++s) {
      double dot = 0;
      for (std::size_t d = 0; d < q.cols; ++d) dot += q(t, d) * k(s, d);
      score[s] = dot * scale + penalty(t, s);
      top = std::max(top, score[s]);
    }
    double sum = 0;
    for (double& s : score) sum += s = std::exp(s - top);
    for (std::size_t s = 0; s < k.rows; ++s) {
      for (std::size_t c = 0; c < v.cols; ++c) y(t, c) += score[s] / sum * v(s, c);
    }
  }
  return y;
}

Matrix naive_attention(const Matrix& q, const Matrix& k, const Matrix& v, std::size_t n_heads,
                       std::size_t n_kv_heads, double scale, const Penalty& penalty) {
  const std::size_t d_k = q.cols / n_heads;
  const std::size_t d_v = v.cols / n_kv_heads;
  Matrix y(q.rows, n_heads * d_v);
  for (std::size_t h = 0; h < n_heads; ++h) {
    const std::size_t g = h / (n_heads / n_kv_heads);
    const Matrix head = naive_attention_head(columns(q, h * d_k, d_k), columns(k, g * d_k, d_k),
                                             columns(v, g * d_v, d_v), scale, penalty);
    for (std::size_t t = 0; t < q.rows; ++t) {
      for (std::size_t c = 0; c < d_v; ++c) y(t, h * d_v + c) = head(t, c);
    }
  }
  return y;
}

Matrix naive_length_normalized(const Matrix& k, std::size_t d_k) {
  Matrix y = k;
  for (std::size_t t = 0; t < k.rows; ++t) {
    for (std::size_t begin = 0; begin < k.cols; begin += d_k) {
      double squares = 0;
      for (std::size_t d = 0; d < d_k; ++d) squares += k(t, begin + d) * k(t, begin + d);
      const double norm = std::sqrt(squares / static_cast<double>(d_k) + 1e-6);
      for (std::size_t d = 0; d < d_k; ++d) y(t, begin + d) /= norm;
    }
  }
  return y;
}

float rounded_to_bf16(float x) {
  // The two neighbours with 16 bits; the nearer one, or the even one of two equally near.
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const float below = std::bit_cast<float>(bits & 0xFFFF0000U);
  const float above = std::bit_cast<float>((bits & 0xFFFF0000U) + 0x10000U);
  const double to_below = std::abs(static_cast<double>(x) - below);
  const double to_above = std::abs(static_cast<double>(above) - x);
  if (to_below != to_above) return to_below < to_above ? below : above;
  return (bits >> 16 & 1U) == 0 ? below : above;
}

}  // namespace terrace::test
