// SPDX-License-Identifier: Apache-2.0
#include "sparse/projection.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>

#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr std::size_t kRows = 4;

/// Compares a projection with its double version, and all cuts and thread counts with each other.
void check_projection(const Projection& projection, DType dtype, const std::vector<float>& x,
                      const Matrix& expected) {
  const LayerUnderTest layer{
      [&](Exec& exec, ConstRows rows, float*, Rows y) { projection.forward(exec, rows, y); },
      projection.d_in(), projection.d_out(), 0};
  REQUIRE(projection.d_out() == expected.cols);
  REQUIRE(projection.d_in() * kRows == x.size());
  TestExec exec(2);
  CHECK(relative_difference(run_layer(exec.get(), layer, x, {kRows}), expected) < 2 * tolerance(dtype));
  check_same_bits(layer, x);
  for (std::size_t t = 0; t < kRows; ++t) {
    const ConstRows row(x.data() + t * projection.d_in(), 1, projection.d_in(), projection.d_in());
    const std::vector<float> y = run_layer(exec.get(), layer, {row.data, row.data + row.width}, {1});
    const auto largest = std::max_element(y.begin(), y.end());
    const Largest found = projection.largest(exec.get(), row);
    CHECK(found.value == *largest);
    CHECK(found.index == static_cast<std::size_t>(largest - y.begin()));
  }
}

TEST_CASE("Largest: the first of the largest numbers, in whatever order they are looked at") {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> z = random_floats(1000, 3);
  for (const std::size_t i : {0, 64, 999}) z[i] = kNan;
  z[5] = -kInfinity;
  for (const float top : {7.0F, kInfinity}) {
    for (const std::size_t first : {1, 63, 65, 500, 998}) {
      std::vector<float> with_top = z;
      with_top[first] = with_top[(first + 998) / 2] = with_top[998] = top;
      for (const std::size_t cut : {1, 16, 100, 999}) {
        Largest before, after;
        before.take(with_top.data(), cut, 0);
        after.take(with_top.data() + cut, z.size() - cut, cut);
        Largest forwards = before, backwards = after;
        forwards.take(after);
        backwards.take(before);
        for (const Largest& found : {forwards, backwards}) {
          CHECK(found.value == top);
          CHECK(found.index == first);
        }
      }
    }
  }
  Largest none;
  const std::vector<float> nothing(100, kNan);
  none.take(nothing.data(), nothing.size(), 0);
  none.take(z.data() + 5, 1, 5);
  CHECK(none.index == Largest::kNowhere);
}

TEST_CASE("largest: maps of more rows than a block, panels and threads find what forward() gives") {
  const std::size_t d = 2112;  // three panels of a multiplicative layer
  const std::vector<float> x = random_floats(d, 1);
  const std::vector<float> bias = random_floats(5000, 2);
  for (const DenseKernels* kernels : available_dense_kernels()) {
    for (const DType dtype : kAllDtypes) {
      CAPTURE(kernels->name);
      CAPTURE(dtype_name(dtype));
      const StoredWeight dense(dtype, 3001, d, 3, 0.2F);
      const StoredWeight gate(dtype, 8, d, 4);
      const StoredWeight shared(dtype, 601, d, 5, 0.2F);
      for (const Projection& projection :
           {Projection(Linear(*kernels, dense.view(), bias.data())),
            Projection(FactoredDense(*kernels, gate.view(), shared.view(), bias.data()))}) {
        for (const unsigned threads : {1, 3}) {
          TestExec exec(threads);
          std::vector<float> y(projection.d_out());
          const ConstRows row(x.data(), 1, d, d);
          projection.forward(exec.get(), row, {y.data(), 1, y.size(), y.size()});
          const auto largest = std::max_element(y.begin(), y.end());
          const Largest found = projection.largest(exec.get(), row);
          CHECK(found.value == *largest);
          CHECK(found.index == static_cast<std::size_t>(largest - y.begin()));
        }
      }
    }
  }
}

TEST_CASE("Projection: every kind, dtype and ISA agrees with its formula in double") {
  for (const DenseKernels* kernels : available_dense_kernels()) {
    for (const DType dtype : kAllDtypes) {
      CAPTURE(kernels->name);
      CAPTURE(dtype_name(dtype));
      const std::size_t d = 256;
      const auto x = random_floats(kRows * d, 1);
      const Matrix in(kRows, d, x);
      const auto bias = random_floats(320, 2);
      const auto bias_of = [&](std::size_t n) { return Vector(bias.begin(), bias.begin() + n); };

      const StoredWeight dense(dtype, 72, d, 3, 0.2F);
      check_projection(Projection(Linear(*kernels, dense.view(), bias.data())), dtype, x,
                       naive_linear(in, dense.values(), bias_of(72)));

      const StoredWeight gate(dtype, 4, d, 4);
      const Matrix gates = gate.values();
      const StoredWeight shared(dtype, 64, d, 5, 0.2F);
      check_projection(Projection(FactoredDense(*kernels, gate.view(), shared.view(), bias.data())), dtype, x,
                       naive_factored(in, gates, shared.values(), bias_of(256)));

      const StoredWeight modules(dtype, 256, 64, 6, 0.2F);
      check_projection(
          Projection(MultModularDense(*kernels, gate.view(), shared.view(), modules.view(), bias.data())),
          dtype, x,
          naive_local(naive_factored(in, gates, shared.values(), {}), modules.values(), bias_of(256), 4, 1));

      const StoredWeight conv(dtype, 48, 3 * 64, 7, 0.2F);
      check_projection(Projection(LocallyConvDense(*kernels, conv.view(), bias.data(), 4, 3, 1)), dtype, x,
                       naive_conv(in, conv.values(), bias_of(48), 4, 3, 1));

      const StoredWeight down(dtype, 64, d, 8, 0.2F);
      const StoredWeight up(dtype, 96, 64, 9, 0.2F);
      check_projection(Projection(LowRankDense(Linear(*kernels, down.view(), bias.data()),
                                               Linear(*kernels, up.view(), bias.data()))),
                       dtype, x,
                       naive_linear(naive_linear(in, down.values(), bias_of(64)), up.values(), bias_of(96)));
    }
  }
}

TEST_CASE("LocallyConnectedDense: wraps around, at any number of modules and any kernel") {
  for (const DType dtype : kAllDtypes) {
    for (const std::size_t n_modules : {1, 2, 3, 4}) {
      for (const std::size_t kernel_size : {1, 3, 5}) {
        CAPTURE(dtype_name(dtype));
        CAPTURE(n_modules);
        CAPTURE(kernel_size);
        const std::size_t d = 64 * n_modules;
        const StoredWeight weight(dtype, 10 * n_modules, 64 * (n_modules == 1 ? 1 : kernel_size), 1, 0.2F);
        const auto bias = random_floats(10 * n_modules, 2);
        const auto x = random_floats(kRows * d, 3);
        check_projection(
            Projection(LocallyConnectedDense(dense_kernels(isa_from_environment()), weight.view(),
                                             bias.data(), n_modules, kernel_size)),
            dtype, x, naive_local(Matrix(kRows, d, x), weight.values(), bias, n_modules, kernel_size));
      }
    }
  }
}

TEST_CASE("Projection: maps that cannot be one are refused") {
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  const StoredWeight weight(DType::kF32, 8, 3 * 3 * 8, 1);
  expect_error(ErrorCode::kBadArgument, "3 time steps",
               [&] { Projection(LocallyConvDense(kernels, weight.view(), nullptr, 4, 3, 3)); });
  expect_error(ErrorCode::kBadArgument, "kernel of 4",
               [&] { LocallyConnectedDense(kernels, weight.view(), nullptr, 4, 4); });
  const Linear map(kernels, weight.view(), nullptr);
  expect_error(ErrorCode::kBadArgument, "down gives 8 channels, up reads 72",
               [&] { LowRankDense(map, map); });
  const std::vector<float> gate(4 * 72);
  expect_error(ErrorCode::kBadArgument, "shared projection gives 32",
               [&] { MultModularDense(kernels, f32_view(gate, 4), weight.view(), weight.view(), nullptr); });
}

}  // namespace
}  // namespace terrace::test
