// SPDX-License-Identifier: Apache-2.0
// Norms, quantisation and elementwise kernels of every instruction set.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "engine/dtype.h"
#include "engine/float_mode.h"
#include "engine/kernels/dense_kernels.h"
#include "tests/support/kernel_tables.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace terrace::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr std::size_t kLongest = 131;

const DenseKernels& scalar() { return dense_kernels(Isa::kScalar); }

struct Quantized {
  std::vector<std::int8_t> q;
  float scale;
  std::int32_t sum;
  bool operator==(const Quantized&) const = default;
};

Quantized run_quantize(const DenseKernels& kernels, const std::vector<float>& x) {
  constexpr std::int8_t kUntouched = 99;
  const std::size_t padded = (x.size() + 63) / 64 * 64;
  std::vector<std::int8_t> q(padded + 1, kUntouched);
  const QuantizedRow row = quantize_row(kernels, x.data(), x.size(), q.data());
  CHECK(row.q == q.data());
  CHECK(q.back() == kUntouched);
  for (std::size_t i = x.size(); i < padded; ++i) CHECK(q[i] == 0);
  q.pop_back();
  return {q, row.scale, row.sum};
}

TEST_CASE("quantize: every instruction set agrees with the specification") {
  Random random(1);
  for (std::size_t d = 1; d <= kLongest; ++d) {
    const std::vector<float> x = random.floats(d, -5.0F, 5.0F);
    const Quantized expected = run_quantize(scalar(), x);
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < d; ++i) {
      CHECK(std::abs(expected.q[i] * expected.scale - x[i]) <= 0.5001F * expected.scale);
      sum += expected.q[i];
    }
    CHECK(sum == expected.sum);
    CHECK(std::abs(*std::max_element(expected.q.begin(), expected.q.end(),
                                     [](int a, int b) { return std::abs(a) < std::abs(b); })) == 127);
    for (const DenseKernels* kernels : available_dense_kernels()) {
      CAPTURE(std::string(kernels->name));
      CAPTURE(d);
      CHECK((run_quantize(*kernels, x) == expected));
    }
  }
}

TEST_CASE("quantize_runs: every run is a row of its own by a common scale; nothing between runs is written") {
  Random random(8);
  constexpr std::size_t kRuns = 5, kGap = 7;
  constexpr std::int8_t kUntouched = 99;
  for (const std::size_t run : {1, 8, 15, 16, 40, 64, 100, 128}) {
    const std::vector<float> x = random.floats(kRuns * run);
    for (const DenseKernels* kernels : available_dense_kernels()) {
      CAPTURE(std::string(kernels->name));
      CAPTURE(run);
      const float largest = kernels->largest_magnitude(x.data(), x.size());
      const std::size_t stride = run + kGap;
      std::vector<std::int8_t> q(kRuns * stride, kUntouched);
      std::vector<std::int32_t> sums(kRuns, 1000);
      kernels->quantize_runs(x.data(), kRuns, run, scale_of(largest), q.data(), stride, sums.data());
      for (std::size_t r = 0; r < kRuns; ++r) {
        std::vector<std::int8_t> alone((run + 63) / 64 * 64);
        const QuantizedRow row =
            quantize_row(dense_kernels(Isa::kScalar), x.data() + r * run, run, largest, alone.data());
        CHECK(sums[r] == 1000 + row.sum);
        for (std::size_t i = 0; i < run; ++i) CHECK(q[r * stride + i] == alone[i]);
        for (std::size_t i = run; i < stride; ++i) CHECK(q[r * stride + i] == kUntouched);
      }
    }
  }
}

TEST_CASE("quantize: ties go to even") {
  const std::vector<float> x = {127.0F, 0.5F, 1.5F, 2.5F, -0.5F, -1.5F, -2.5F, 126.5F};
  for (const DenseKernels* kernels : available_dense_kernels()) {
    CAPTURE(std::string(kernels->name));
    const Quantized result = run_quantize(*kernels, x);
    CHECK(result.scale == 1.0F);
    const std::vector<std::int8_t> expected = {127, 0, 2, 2, 0, -2, -2, 126};
    CHECK(std::equal(expected.begin(), expected.end(), result.q.begin()));
  }
}

TEST_CASE("quantize: zeros, NaN, infinities and denormal numbers") {
  for (const DenseKernels* kernels : available_dense_kernels()) {
    CAPTURE(std::string(kernels->name));
    for (const std::size_t d : {1, 16, 40}) {
      const Quantized zero = run_quantize(*kernels, std::vector<float>(d, 0.0F));
      CHECK(zero.scale == 0.0F);
      CHECK(zero.sum == 0);
    }
    const Quantized nan = run_quantize(*kernels, {1.0F, kNan, -2.0F});
    CHECK(nan.scale == 2.0F / 127.0F);
    CHECK(nan.q[1] == 0);
    CHECK(nan.q[2] == -127);
    CHECK(run_quantize(*kernels, {kNan, kNan}).scale == 0.0F);

    // The scale keeps the infinity, so the output will not look healthy.
    const Quantized infinite = run_quantize(*kernels, {1.0F, kInfinity, -2.0F});
    CHECK(infinite.scale == kInfinity);
    CHECK(infinite.sum == 0);

    for (const float tiny : {1e-45F, 3e-44F, 2.66e-43F, 1e-40F, 1e-37F}) {
      CAPTURE(tiny);
      std::vector<float> x(40, tiny);
      x[3] = -tiny;
      CHECK((run_quantize(*kernels, x) == run_quantize(scalar(), x)));
      const FlushDenormals mode;
      CHECK((run_quantize(*kernels, x) == run_quantize(scalar(), x)));
    }
  }
}

TEST_CASE("norm: the bits of the specification, and close to the formula in double") {
  Random random(2);
  constexpr float kEpsilon = 1e-6F;
  for (std::size_t d = 1; d <= kLongest; ++d) {
    const std::vector<float> x = random.floats(d, -2.0F, 4.0F);
    const std::vector<float> scale = random.floats(d);
    const std::vector<float> bias = random.floats(d);
    for (const bool center : {false, true}) {
      for (const float* b : {static_cast<const float*>(nullptr), bias.data()}) {
        double mean = 0;
        for (const float v : x) mean += v / static_cast<double>(d);
        if (!center) mean = 0;
        double variance = 0;
        for (const float v : x) variance += (v - mean) * (v - mean) / static_cast<double>(d);
        std::vector<float> expected(d);
        scalar().norm(x.data(), d, scale.data(), b, center, kEpsilon, expected.data());
        for (std::size_t i = 0; i < d; ++i) {
          const double y =
              (x[i] - mean) / std::sqrt(variance + kEpsilon) * scale[i] + (center && b ? b[i] : 0.0F);
          // A single value minus its mean is rounding noise over sqrt(epsilon).
          CHECK(std::abs(expected[i] - y) <= 2e-5);
        }
        for (const DenseKernels* kernels : available_dense_kernels()) {
          CAPTURE(std::string(kernels->name));
          CAPTURE(d);
          std::vector<float> y(d);
          kernels->norm(x.data(), d, scale.data(), b, center, kEpsilon, y.data());
          CHECK(same_bits(y, expected));
          y = x;
          kernels->norm(y.data(), d, scale.data(), b, center, kEpsilon, y.data());
          CHECK(same_bits(y, expected));
        }
      }
    }
  }
}

TEST_CASE("widen_bf16: exact") {
  std::vector<std::uint16_t> all(65536);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
  for (const DenseKernels* kernels : available_dense_kernels()) {
    CAPTURE(std::string(kernels->name));
    for (const std::size_t d : {std::size_t{1}, std::size_t{13}, std::size_t{65533}}) {
      std::vector<float> y(d + 1, -77.0F);
      kernels->widen_bf16(all.data(), d, y.data());
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < d; ++i)
        wrong += std::bit_cast<std::uint32_t>(y[i]) != std::uint32_t{all[i]} << 16;
      CHECK(wrong == 0);
      CHECK(y[d] == -77.0F);
    }
  }
}

TEST_CASE("multiply, add, multiply_to, relu: the bits of the specification, nothing behind the end") {
  Random random(3);
  for (std::size_t n = 1; n <= kLongest; ++n) {
    const std::vector<float> a = random.floats(n + 1);
    const std::vector<float> b = random.floats(n);
    for (const DenseKernels* kernels : available_dense_kernels()) {
      CAPTURE(std::string(kernels->name));
      CAPTURE(n);
      std::vector<float> product = a, sum = a, positive = a, to = a;
      kernels->multiply(product.data(), b.data(), n);
      kernels->add(sum.data(), b.data(), n);
      kernels->relu(positive.data(), n);
      kernels->multiply_to(a.data(), b.data(), to.data(), n);
      for (std::size_t i = 0; i < n; ++i) {
        CHECK(product[i] == a[i] * b[i]);
        CHECK(to[i] == a[i] * b[i]);
        CHECK(sum[i] == a[i] + b[i]);
        CHECK(positive[i] == std::max(a[i], 0.0F));
      }
      for (const auto& v : {product, sum, positive, to}) CHECK(v[n] == a[n]);
    }
  }
}

TEST_CASE("multiply_bf16, multiply_q8: the bits of the specification, the maximum, nothing behind the end") {
  Random random(5);
  for (std::size_t n = 1; n <= kLongest; ++n) {
    const std::vector<float> x = random.floats(n);
    std::vector<std::uint16_t> bf16(n);
    std::vector<std::int8_t> q8(n);
    for (std::size_t i = 0; i < n; ++i) {
      bf16[i] = f32_to_bf16(random.floats(1)[0]);
      q8[i] = static_cast<std::int8_t>(127.0F * random.floats(1)[0]);
    }
    constexpr float kScale = 0.013F, kUntouched = 77.0F;
    for (const DenseKernels* kernels : available_dense_kernels()) {
      CAPTURE(std::string(kernels->name));
      CAPTURE(n);
      std::vector<float> of_bf16(n + 1, kUntouched), of_q8(n + 1, kUntouched);
      kernels->multiply_bf16(x.data(), bf16.data(), of_bf16.data(), n);
      const float largest = kernels->multiply_q8(x.data(), q8.data(), kScale, of_q8.data(), n);
      CHECK(largest == kernels->largest_magnitude(of_q8.data(), n));
      for (std::size_t i = 0; i < n; ++i) {
        CHECK(of_bf16[i] == x[i] * bf16_to_f32(bf16[i]));
        CHECK(of_q8[i] == x[i] * (kScale * static_cast<float>(q8[i])));
      }
      CHECK(of_bf16[n] == kUntouched);
      CHECK(of_q8[n] == kUntouched);
    }
  }
}

/// x times weights as gate_row() makes it from 16 bits of x; empty if they are too few.
struct Gated {
  std::vector<std::int8_t> q;
  float scale = 0;
  std::int32_t sum = 0;
  bool operator==(const Gated&) const = default;
};

Gated run_gate(const DenseKernels& kernels, const std::vector<float>& x, const std::vector<std::int8_t>& w,
               float w_scale) {
  constexpr std::int16_t kUntouchedWord = 999;
  constexpr std::int8_t kUntouched = 99;
  const std::size_t padded = (x.size() + 63) / 64 * 64;
  std::vector<std::int16_t> words(padded + 1, kUntouchedWord);
  std::vector<std::int8_t> q(padded + 1, kUntouched);
  const Int16Row row = int16_row(kernels, x.data(), x.size(), words.data());
  CHECK(words.back() == kUntouchedWord);
  QuantizedRow gated{};
  if (row.scale == 0.0F || !gate_row(kernels, row, w.data(), w_scale, x.size(), q.data(), gated)) return {};
  CHECK(gated.q == q.data());
  CHECK(q.back() == kUntouched);
  q.pop_back();
  return {q, gated.scale, gated.sum};
}

std::vector<std::int8_t> random_bytes(Random& random, std::size_t n) {
  std::vector<std::int8_t> w(n);
  for (std::int8_t& v : w) v = static_cast<std::int8_t>(random.floats(1, -128.0F, 127.49F)[0]);
  return w;
}

TEST_CASE("gate_row: the bits of the specification; no more lost than an eighth of a step beside rounding") {
  Random random(15);
  constexpr float kScale = 0.013F;
  std::size_t n_made = 0;
  for (std::size_t d = 1; d <= kMostProduct; d = d < kLongest ? d + 1 : d + 127) {
    const std::vector<float> x = random.floats(d, -5.0F, 5.0F);
    const std::vector<std::int8_t> w = random_bytes(random, d);
    CAPTURE(d);
    const Gated expected = run_gate(scalar(), x, w, kScale);
    n_made += !expected.q.empty();
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < expected.q.size(); ++i) {
      const float product = i < d ? x[i] * (kScale * static_cast<float>(w[i])) : 0.0F;
      CHECK(std::abs(static_cast<float>(expected.q[i]) * expected.scale - product) <= 0.63F * expected.scale);
      sum += expected.q[i];
    }
    CHECK(sum == expected.sum);
    for (const DenseKernels* kernels : available_dense_kernels()) {
      CAPTURE(std::string(kernels->name));
      CHECK(run_gate(*kernels, x, w, kScale) == expected);
    }
  }
  CHECK(n_made > 130);
}

TEST_CASE("gate_row: the largest products of the largest numbers stay in range") {
  const std::vector<float> x = {3.0F, -3.0F, 3.0F, -3.0F};
  const std::vector<std::int8_t> w = {127, 127, -128, -128};
  for (const DenseKernels* kernels : available_dense_kernels()) {
    CAPTURE(std::string(kernels->name));
    const Gated gated = run_gate(*kernels, x, w, 1.0F);
    REQUIRE(gated.q.size() == 64);
    CHECK(gated.q[0] == 126);
    CHECK(gated.q[1] == -126);
    CHECK(gated.q[2] == -127);
    CHECK(gated.q[3] == 127);
  }
}

TEST_CASE("int16_row, gate_row: rows that 16 bits are too few for are left to floats; NaN counts as 0") {
  const std::vector<std::int8_t> w(70, 100);
  std::vector<std::int8_t> without_first = w;
  without_first[0] = 0;
  std::vector<float> usual(70, 1.0F), one_large = usual, with_nan = usual;
  one_large[0] = 5000.0F;
  with_nan[3] = kNan;
  for (const DenseKernels* kernels : available_dense_kernels()) {
    CAPTURE(std::string(kernels->name));
    CHECK(!run_gate(*kernels, usual, w, 1.0F).q.empty());
    CHECK(!run_gate(*kernels, one_large, w, 1.0F).q.empty());
    CHECK(run_gate(*kernels, one_large, without_first, 1.0F).q.empty());
    for (const float v : {0.0F, kNan, kInfinity, 1e-38F, 3e38F}) {
      CHECK(run_gate(*kernels, std::vector<float>(70, v), w, 1.0F).q.empty());
    }
    CHECK(run_gate(*kernels, usual, std::vector<std::int8_t>(70, 0), 1.0F).q.empty());
    const Gated gated = run_gate(*kernels, with_nan, w, 1.0F);
    REQUIRE(gated.q.size() == 128);
    CHECK(gated.q[2] == 127);
    CHECK(gated.q[3] == 0);
  }
}

TEST_CASE("relu keeps NaN") {
  for (const DenseKernels* kernels : available_dense_kernels()) {
    CAPTURE(std::string(kernels->name));
    std::vector<float> x(21, kNan);
    kernels->relu(x.data(), x.size());
    for (const float v : x) CHECK(std::isnan(v));
  }
}

TEST_CASE("gelu, fast_gelu, silu, sigmoid: close to the formulas in double over the whole range") {
  struct Activation {
    const char* name;
    void (*DenseKernels::*kernel)(float*, std::size_t) noexcept;
    double (*exact)(double);
  };
  const Activation activations[] = {
      {"gelu", &DenseKernels::gelu, [](double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }},
      {"fast_gelu", &DenseKernels::fast_gelu,
       [](double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }},
      {"silu", &DenseKernels::silu, [](double x) { return x / (1 + std::exp(-x)); }},
      {"sigmoid", &DenseKernels::sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }},
  };
  std::vector<float> x;
  for (int i = -12000; i <= 12000; ++i) x.push_back(static_cast<float>(i) / 1000.0F);
  for (const float v : {-1e30F, -1000.0F, -150.0F, -90.0F, -40.0F, 40.0F, 90.0F, 150.0F, 1000.0F, 1e30F}) {
    x.push_back(v);
  }
  std::vector<float> agreed;
  for (const Activation& activation : activations) {
    agreed.clear();
    for (const DenseKernels* kernels : available_dense_kernels()) {
      CAPTURE(std::string(activation.name));
      CAPTURE(std::string(kernels->name));
      std::vector<float> y = x;
      (kernels->*activation.kernel)(y.data(), y.size());
      double worst = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double error = std::abs(y[i] - activation.exact(x[i])) / std::max(1.0, std::abs(double{x[i]}));
        if (!(error <= worst)) worst = error;  // NaN too
      }
      CHECK(worst <= 2.5e-7);
      float nan = kNan;
      (kernels->*activation.kernel)(&nan, 1);
      CHECK(std::isnan(nan));
      if (kernels->isa == Isa::kScalar) continue;
      if (agreed.empty()) agreed = y;
      CHECK(same_bits(y, agreed));
    }
  }
}

}  // namespace
}  // namespace terrace::test
