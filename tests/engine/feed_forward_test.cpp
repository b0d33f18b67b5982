// SPDX-License-Identifier: Apache-2.0
#include "engine/feed_forward.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr std::size_t kD = 128;
constexpr std::size_t kFf = 320;

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kRelu:
      return x > 0.0 ? x : 0.0;
    case Activation::kGelu:
      return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
    case Activation::kFastGelu:
      return 0.5 * x * (1.0 + std::tanh(0.7978845608 * x * (1.0 + 0.044715 * x * x)));
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
  }
  return 0.0;
}

struct Case {
  Case(const DenseKernels& kernels, DType dtype, Activation a, bool gated)
      : activation(a),
        w1(dtype, kFf, kD, 1, 0.2F),
        w2(dtype, kD, kFf, 2, 0.2F),
        gate(dtype, kFf, kD, 3, 0.2F),
        b1(random_floats(kFf, 4)),
        b2(random_floats(kD, 5)),
        is_gated(gated),
        layer(Linear(kernels, w1.view(), b1.data()), Linear(kernels, w2.view(), b2.data()),
              gated ? Linear(kernels, gate.view(), nullptr) : Linear(), a) {}

  LayerUnderTest under_test(std::size_t width) const {
    return {[this, width](Exec& exec, ConstRows x, float*, Rows y) { layer.forward(exec, x, y, width); }, kD,
            kD, 0};
  }

  Matrix expected(const Matrix& x, std::size_t width) const {
    Matrix h = naive_linear(x, w1.values(), b1);
    const Matrix g = naive_linear(x, gate.values(), {});
    for (std::size_t t = 0; t < x.rows; ++t) {
      for (std::size_t u = 0; u < kFf; ++u) {
        h(t, u) = is_gated ? activate(activation, g(t, u)) * h(t, u) : activate(activation, h(t, u));
        if (u >= width) h(t, u) = 0.0;
      }
    }
    return naive_linear(h, w2.values(), b2);
  }

  Activation activation;
  StoredWeight w1;
  StoredWeight w2;
  StoredWeight gate;
  std::vector<float> b1;
  std::vector<float> b2;
  bool is_gated;
  FeedForward layer;
};

constexpr Activation kActivations[] = {Activation::kRelu, Activation::kGelu, Activation::kFastGelu,
                                       Activation::kSilu};

TEST_CASE(
    "FeedForward: every activation, plain and gated, at every width, agrees with the formula in double") {
  TestExec exec(2);
  for (const DenseKernels* kernels : available_dense_kernels()) {
    for (const DType dtype : kAllDtypes) {
      for (const Activation activation : kActivations) {
        for (const bool gated : {false, true}) {
          const Case c(*kernels, dtype, activation, gated);
          const auto x = random_floats(3 * kD, 6);
          for (const std::size_t width : {std::size_t{64}, std::size_t{192}, kFf}) {
            CAPTURE(kernels->name);
            CAPTURE(dtype_name(dtype));
            CAPTURE(static_cast<int>(activation));
            CAPTURE(gated);
            CAPTURE(width);
            CHECK(relative_difference(run_layer(exec.get(), c.under_test(width), x, {3}),
                                      c.expected(Matrix(3, kD, x), width)) < 2 * tolerance(dtype));
          }
        }
      }
    }
  }
}

TEST_CASE("FeedForward: any cut into calls and any number of threads gives the same bits") {
  for (const DType dtype : kAllDtypes) {
    for (const bool gated : {false, true}) {
      const Case c(dense_kernels(isa_from_environment()), dtype, Activation::kGelu, gated);
      check_same_bits(c.under_test(kFf), random_floats(4 * kD, 7));
      check_same_bits(c.under_test(64), random_floats(3 * kD, 8));
    }
  }
}

TEST_CASE("FeedForward: a width that no vector divides") {
  const Case c(dense_kernels(isa_from_environment()), DType::kBf16, Activation::kSilu, true);
  const auto x = random_floats(2 * kD, 9);
  TestExec exec(1);
  CHECK(relative_difference(run_layer(exec.get(), c.under_test(77), x, {2}),
                            c.expected(Matrix(2, kD, x), 77)) < tolerance(DType::kBf16));
}

TEST_CASE("FeedForward: shapes that do not fit are refused") {
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  const StoredWeight a(DType::kF32, 8, 4, 1);
  const StoredWeight b(DType::kF32, 4, 8, 2);
  const Linear up(kernels, a.view(), nullptr);
  const Linear down(kernels, b.view(), nullptr);
  expect_error(ErrorCode::kBadArgument, "w1 [8, 4] and w2 [8, 4]",
               [&] { FeedForward(up, up, {}, Activation::kRelu); });
  expect_error(ErrorCode::kBadArgument, "gate [4, 8]",
               [&] { FeedForward(up, down, down, Activation::kRelu); });
}

}  // namespace
}  // namespace terrace::test
