// SPDX-License-Identifier: Apache-2.0
#include "sparse/factored_dense.h"

#include <doctest/doctest.h>

#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

struct Shape {
  std::size_t d_in;
  std::size_t n_modules;
  std::size_t d_module;
};

/// Below, at and beyond one column panel; one module; many modules; sizes that no vector divides.
constexpr Shape kShapes[] = {{64, 4, 16}, {512, 1, 40}, {576, 16, 33}, {1216, 3, 70}, {128, 150, 2}};

struct Case {
  Case(const DenseKernels& kernels, DType dtype, const Shape& shape)
      : proj(dtype, shape.d_module, shape.d_in, 1, 0.3F),
        gate(dtype, shape.n_modules, shape.d_in, 2),
        bias(random_floats(shape.n_modules * shape.d_module, 3)),
        layer(kernels, gate.view(), proj.view(), bias.data()) {}

  LayerUnderTest under_test() const {
    return {[this](Exec& exec, ConstRows x, float*, Rows y) { layer.forward(exec, x, y); }, layer.d_in(),
            layer.d_out(), 0};
  }

  StoredWeight proj;
  StoredWeight gate;
  std::vector<float> bias;
  FactoredDense layer;
};

TEST_CASE("FactoredDense: every ISA and dtype agrees with the formula in double") {
  TestExec exec(2);
  for (const DenseKernels* kernels : available_dense_kernels()) {
    for (const DType dtype : kAllDtypes) {
      for (const Shape& shape : kShapes) {
        CAPTURE(kernels->name);
        CAPTURE(dtype_name(dtype));
        CAPTURE(shape.d_in);
        const Case c(*kernels, dtype, shape);
        const std::size_t n = 3;
        const auto x = random_floats(n * shape.d_in, 4);
        const Matrix expected =
            naive_factored(Matrix(n, shape.d_in, x), c.gate.values(), c.proj.values(), c.bias);
        CHECK(relative_difference(run_layer(exec.get(), c.under_test(), x, {n}), expected) <
              tolerance(dtype));
      }
    }
  }
}

TEST_CASE("FactoredDense: any cut into calls and any number of threads gives the same bits") {
  for (const DType dtype : kAllDtypes) {
    for (const Shape& shape : kShapes) {
      CAPTURE(dtype_name(dtype));
      CAPTURE(shape.d_in);
      const Case c(dense_kernels(isa_from_environment()), dtype, shape);
      check_same_bits(c.under_test(), random_floats(4 * shape.d_in, 5));
    }
  }
}

TEST_CASE("FactoredDense: more tokens than one batch of gated rows") {
  const Case c(dense_kernels(isa_from_environment()), DType::kF32, {576, 16, 33});
  const std::size_t n = 19;  // a batch is 8 tokens of 16 modules
  const auto x = random_floats(n * 576, 6);
  TestExec exec(2);
  const auto singles = run_layer(exec.get(), c.under_test(), x, std::vector<std::size_t>(n, 1));
  CHECK(run_layer(exec.get(), c.under_test(), x, {n}) == singles);
}

TEST_CASE("FactoredDense: one module with a gate of ones is a dense layer") {
  const StoredWeight proj(DType::kF32, 24, 100, 7);
  const std::vector<float> gate(100, 1.0F);
  const FactoredDense layer(dense_kernels(isa_from_environment()), f32_view(gate, 1), proj.view(), nullptr);
  const auto x = random_floats(2 * 100, 8);
  std::vector<float> y(2 * 24);
  TestExec exec(1);
  layer.forward(exec.get(), {x.data(), 2, 100, 100}, {y.data(), 2, 24, 24});
  CHECK(relative_difference(y, naive_linear(Matrix(2, 100, x), proj.values(), {})) < tolerance(DType::kF32));
}

TEST_CASE("FactoredDense: any permutation can be expressed exactly") {
  // With d = S * M, module s gates the input of each of its outputs and a one-hot projection reads it out.
  constexpr std::size_t kModules = 4;
  constexpr std::size_t kWidth = 8;
  constexpr std::size_t kD = kModules * kWidth;
  std::vector<std::size_t> permutation(kD);
  for (std::size_t i = 0; i < kD; ++i) permutation[i] = (5 * i + 3) % kD;
  // proj[m] is one on the inputs that some module wants at place m; the gate of module s keeps that module's.
  std::vector<float> gate(kModules * kD, 0.0F);
  std::vector<float> proj(kWidth * kD, 0.0F);
  for (std::size_t s = 0; s < kModules; ++s) {
    for (std::size_t m = 0; m < kWidth; ++m) {
      const std::size_t source = permutation[s * kWidth + m];
      gate[s * kD + source] = 1.0F;
      proj[m * kD + source] = 1.0F;
    }
  }
  const WeightView view{proj.data(), nullptr, kWidth, kD, kD, DType::kF32};
  const FactoredDense layer(dense_kernels(isa_from_environment()), f32_view(gate, kModules), view, nullptr);
  const auto x = random_floats(kD, 9);
  std::vector<float> y(kD);
  TestExec exec(1);
  layer.forward(exec.get(), {x.data(), 1, kD, kD}, {y.data(), 1, kD, kD});
  for (std::size_t i = 0; i < kD; ++i) CHECK(y[i] == x[permutation[i]]);
}

TEST_CASE("FactoredDense: missing weights are refused") {
  const StoredWeight proj(DType::kF32, 4, 8, 1);
  const std::vector<float> gate(8);
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  expect_error(ErrorCode::kBadArgument, "found [0, 8]",
               [&] { FactoredDense(kernels, f32_view(gate, 1).slice_rows(0, 0), proj.view(), nullptr); });
  expect_error(ErrorCode::kBadArgument, "gate", [&] { FactoredDense(kernels, {}, proj.view(), nullptr); });
  expect_error(ErrorCode::kBadArgument, "found [2, 4] and [4, 8]",
               [&] { FactoredDense(kernels, f32_view(gate, 2), proj.view(), nullptr); });
}

}  // namespace
}  // namespace terrace::test
