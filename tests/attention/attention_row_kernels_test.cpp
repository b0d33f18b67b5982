// SPDX-License-Identifier: Apache-2.0
// Attention's kernels over plain and gathered rows.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "attention/kernels/attention_kernels.h"
#include "engine/dtype.h"
#include "tests/support/naive_attention.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST_CASE("exp: at most 1.1 ulp off, exact at 0, zero far below, NaN stays NaN") {
  std::vector<float> x;
  for (double at = -87.0; at < 88.0; at += 0.0009765432) x.push_back(static_cast<float>(at));
  std::vector<float> scalar(x.size()), y(x.size());
  attention_kernels(Isa::kScalar).exp(x.data(), x.size(), scalar.data());
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    const double ulp = std::ldexp(1.0, std::ilogb(exact) - 23);
    worst = std::max(worst, std::abs(scalar[i] - exact) / ulp);
  }
  MESSAGE("largest error: " << worst << " ulp");
  CHECK(worst <= 1.1);
  for (const Isa isa : available_isas()) {
    attention_kernels(isa).exp(x.data(), x.size(), y.data());
    CHECK(same_bits(y, scalar));
    std::vector<float> edges{0.0F, -0.0F, -88.0F, -1e9F, -std::numeric_limits<float>::infinity(),
                             kNan, -1e30F};
    attention_kernels(isa).exp(edges.data(), edges.size(), edges.data());
    CHECK(edges[0] == 1.0F);
    CHECK(edges[1] == 1.0F);
    CHECK(edges[2] == 0.0F);
    CHECK(edges[3] == 0.0F);
    CHECK(edges[4] == 0.0F);
    CHECK(std::isnan(edges[5]));
    CHECK(edges[6] == 0.0F);
  }
}

TEST_CASE("softmax_weights: same bits on every instruction set, sums to the returned number") {
  for (const Isa isa : available_isas()) {
    for (std::size_t n = 1; n <= 70; ++n) {
      CAPTURE(n);
      auto x = random_floats(n, static_cast<std::uint32_t>(n), 8.0F);
      auto expected = x;
      const auto raw = x;
      const float sum = attention_kernels(isa).softmax_weights(x.data(), n);
      CHECK(sum == attention_kernels(Isa::kScalar).softmax_weights(expected.data(), n));
      CHECK(same_bits(x, expected));
      const float top = *std::max_element(raw.begin(), raw.end());
      double exact = 0;
      for (std::size_t i = 0; i < n; ++i) {
        exact += std::exp(static_cast<double>(raw[i]) - top);
        CHECK(x[i] == doctest::Approx(std::exp(static_cast<double>(raw[i]) - top)).epsilon(1e-6));
      }
      CHECK(sum == doctest::Approx(exact).epsilon(1e-6));
    }
  }
}

/// Checks dot_rows and weighted_sum over the rows `data`, n of d elements of T, which are worth `values`.
template <class T, class Kernel>
void check_gathered(Kernel AttentionKernels::*dot_rows, Kernel AttentionKernels::*weighted_sum,
                    const std::vector<T>& data, const std::vector<float>& values, std::size_t n) {
  const std::size_t d = data.size() / n;
  const auto q = random_floats(d, 1), w = random_floats(n, 3);
  std::vector<const T*> rows;
  for (std::size_t r = 0; r < n; ++r) rows.push_back(data.data() + r * d);
  std::vector<float> dots(n), scalar_dots(n), sum(d), scalar_sum(d);
  const AttentionKernels& scalar = attention_kernels(Isa::kScalar);
  (scalar.*dot_rows)(q.data(), rows.data(), n, d, 0.7F, scalar_dots.data());
  (scalar.*weighted_sum)(w.data(), rows.data(), n, d, 0.7F, scalar_sum.data());
  for (const Isa isa : available_isas()) {
    const AttentionKernels& kernels = attention_kernels(isa);
    CAPTURE(kernels.name);
    (kernels.*dot_rows)(q.data(), rows.data(), n, d, 0.7F, dots.data());
    CHECK(same_bits(dots, scalar_dots));
    (kernels.*weighted_sum)(w.data(), rows.data(), n, d, 0.7F, sum.data());
    CHECK(same_bits(sum, scalar_sum));
  }
  for (std::size_t r = 0; r < n; ++r) {
    double exact = 0, size = 0;
    for (std::size_t i = 0; i < d; ++i) {
      exact += 0.7 * q[i] * values[r * d + i];
      size += std::abs(0.7 * q[i] * values[r * d + i]);
    }
    CHECK(std::abs(dots[r] - exact) <= 1e-6 * size);
  }
  for (std::size_t i = 0; i < d; ++i) {
    double exact = 0, size = 0;
    for (std::size_t r = 0; r < n; ++r) {
      exact += 0.7 * w[r] * values[r * d + i];
      size += std::abs(0.7 * w[r] * values[r * d + i]);
    }
    CHECK(std::abs(sum[i] - exact) <= 1e-6 * size);
  }
}

TEST_CASE("dot_rows and weighted_sum: same bits on every instruction set, close to double, for all tails") {
  for (std::size_t d = 1; d <= 131; d += d < 40 ? 1 : 13) {
    for (const std::size_t n : {1UL, 2UL, 5UL, 12UL, 150UL}) {
      CAPTURE(d);
      CAPTURE(n);
      const auto floats = random_floats(n * d, 2);
      check_gathered(&AttentionKernels::dot_rows, &AttentionKernels::weighted_sum, floats, floats, n);
      std::vector<std::uint16_t> bf16(n * d);
      std::transform(floats.begin(), floats.end(), bf16.begin(), f32_to_bf16);
      std::vector<float> values(n * d);
      std::transform(bf16.begin(), bf16.end(), values.begin(), bf16_to_f32);
      check_gathered(&AttentionKernels::dot_rows_bf16, &AttentionKernels::weighted_sum_bf16, bf16, values, n);
      std::vector<std::int8_t> bytes(n * d);
      std::transform(floats.begin(), floats.end(), bytes.begin(), [](float x) {
        return static_cast<std::int8_t>(std::lround(std::clamp(127 * x, -127.0F, 127.0F)));
      });
      std::copy(bytes.begin(), bytes.end(), values.begin());
      check_gathered(&AttentionKernels::dot_rows_i8, &AttentionKernels::weighted_sum_i8, bytes, values, n);
    }
  }
}

TEST_CASE("linear_attention: updates, reads, or both") {
  for (const Isa isa : available_isas()) {
    const std::size_t m = 7, d = 32;
    const auto key = random_floats(m, 1), value = random_floats(d, 2), query = random_floats(m, 3);
    const auto start = random_floats(m * d, 4);
    auto both = start, updated = start;
    std::vector<float> y(d), read(d);
    const AttentionKernels& kernels = attention_kernels(isa);
    kernels.linear_attention(key.data(), value.data(), query.data(), m, d, both.data(), y.data());
    kernels.linear_attention(key.data(), value.data(), nullptr, m, d, updated.data(), nullptr);
    CHECK(same_bits(both, updated));
    kernels.linear_attention(nullptr, nullptr, query.data(), m, d, updated.data(), read.data());
    CHECK(same_bits(y, read));
    auto scalar = start;
    attention_kernels(Isa::kScalar)
        .linear_attention(key.data(), value.data(), query.data(), m, d, scalar.data(), read.data());
    CHECK(same_bits(scalar, both));
    CHECK(same_bits(read, y));
    for (std::size_t c = 0; c < d; ++c) {
      double exact = 0;
      for (std::size_t r = 0; r < m; ++r) {
        exact += query[r] * (static_cast<double>(start[r * d + c]) + static_cast<double>(key[r]) * value[c]);
      }
      CHECK(y[c] == doctest::Approx(exact).epsilon(1e-5));
    }
  }
}

}  // namespace
}  // namespace terrace::test
