// SPDX-License-Identifier: Apache-2.0
#include "sparse/module_conv.h"

#include <doctest/doctest.h>

#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

struct Shape {
  std::size_t n_modules;
  std::size_t n_channels;
  std::size_t n_units;
  std::size_t kernel_size;
  std::size_t n_steps;
};

/// q4 rows must be multiples of 64, hence the round widths; one module means no taps at all.
constexpr Shape kShapes[] = {{4, 64, 16, 3, 3}, {2, 64, 10, 5, 2}, {3, 128, 24, 1, 4}, {5, 64, 7, 3, 1}};
constexpr Shape kDense = {1, 64, 24, 3, 3};

struct Case {
  Case(const DenseKernels& kernels, DType dtype, const Shape& s)
      : weight(dtype, s.n_units, s.n_modules == 1 ? s.n_channels : s.kernel_size * s.n_steps * s.n_channels,
               1, 0.3F),
        bias(random_floats(s.n_units, 2)),
        layer(kernels, weight.view(), bias.data(), s.n_modules, s.kernel_size, s.n_steps) {}

  LayerUnderTest under_test() const {
    return {[this](Exec& exec, ConstRows x, float* state, Rows y) {
              layer.forward(exec, x, std::span(state, layer.tail_size()), y);
            },
            layer.d_in(), layer.d_out(), layer.tail_size()};
  }

  StoredWeight weight;
  std::vector<float> bias;
  LocallyConvDense layer;
};

TEST_CASE("LocallyConvDense: every ISA and dtype agrees with the formula in double") {
  TestExec exec(2);
  for (const DenseKernels* kernels : available_dense_kernels()) {
    for (const DType dtype : kAllDtypes) {
      for (const Shape& s : {kShapes[0], kShapes[1], kShapes[2], kShapes[3], kDense}) {
        CAPTURE(kernels->name);
        CAPTURE(dtype_name(dtype));
        CAPTURE(s.n_modules);
        const Case c(*kernels, dtype, s);
        const std::size_t n = 6;
        const auto x = random_floats(n * c.layer.d_in(), 3);
        const Matrix expected = naive_conv(Matrix(n, c.layer.d_in(), x), c.weight.values(), c.bias,
                                           s.n_modules, s.kernel_size, s.n_steps);
        CHECK(relative_difference(run_layer(exec.get(), c.under_test(), x, {n}), expected) <
              tolerance(dtype));
      }
    }
  }
}

TEST_CASE("LocallyConvDense: any cut into calls and any number of threads gives the same bits") {
  for (const DType dtype : kAllDtypes) {
    for (const Shape& s : kShapes) {
      CAPTURE(dtype_name(dtype));
      CAPTURE(s.n_modules);
      const Case c(dense_kernels(isa_from_environment()), dtype, s);
      check_same_bits(c.under_test(), random_floats(5 * c.layer.d_in(), 4));
    }
  }
}

TEST_CASE("LocallyConvDense: one module is a dense layer without state") {
  const Case c(dense_kernels(isa_from_environment()), DType::kF32, kDense);
  CHECK(c.layer.tail_size() == 0);
  CHECK(c.layer.d_in() == 64);
  CHECK(c.layer.d_out() == 24);
}

TEST_CASE("LocallyConvDense: the tail holds the newest input rows, oldest first") {
  const Case c(dense_kernels(isa_from_environment()), DType::kF32, kShapes[0]);
  const std::size_t d = c.layer.d_in();
  const auto x = random_floats(3 * d, 5);
  std::vector<float> tail(c.layer.tail_size());
  std::vector<float> y(3 * c.layer.d_out());
  TestExec exec(1);
  const auto feed = [&](std::size_t begin, std::size_t n) {
    c.layer.forward(exec.get(), {x.data() + begin * d, n, d, d}, std::span(tail),
                    {y.data(), n, c.layer.d_out(), c.layer.d_out()});
  };
  feed(0, 1);
  CHECK(std::vector<float>(tail.begin(), tail.begin() + d) == std::vector<float>(d, 0.0F));
  CHECK(std::vector<float>(tail.begin() + d, tail.end()) == std::vector<float>(x.begin(), x.begin() + d));
  feed(1, 2);
  CHECK(tail == std::vector<float>(x.begin() + d, x.end()));
}

TEST_CASE("LocallyConvDense: shapes that do not fit are refused") {
  const StoredWeight weight(DType::kF32, 4, 18, 1);
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  expect_error(ErrorCode::kBadArgument, "kernel of 2 modules",
               [&] { LocallyConvDense(kernels, weight.view(), nullptr, 4, 2, 1); });
  expect_error(ErrorCode::kBadArgument, "x 4 steps",
               [&] { LocallyConvDense(kernels, weight.view(), nullptr, 4, 3, 4); });
  expect_error(ErrorCode::kBadArgument, "0 modules",
               [&] { LocallyConvDense(kernels, weight.view(), nullptr, 0, 3, 3); });
}

}  // namespace
}  // namespace terrace::test
