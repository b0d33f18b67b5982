// SPDX-License-Identifier: Apache-2.0
#include "engine/sru.h"

#include <algorithm>

#include <doctest/doctest.h>

#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr std::size_t kD = 96;
constexpr std::size_t kWidth = 32;

TEST_CASE("SruCell: agrees with the formula in double, in any cut, with input and output in one place") {
  for (const DenseKernels* kernels : available_dense_kernels()) {
    CAPTURE(kernels->name);
    const StoredWeight w(DType::kF32, 3 * kWidth, kWidth, 1, 0.5F);
    const auto b = random_floats(3 * kWidth, 2);
    const SruCell cell(Linear(*kernels, w.view(), b.data()));
    const auto x = random_floats(5 * kWidth, 3, 2.0F);
    const LayerUnderTest layer{[&](Exec& exec, ConstRows rows, float* state, Rows h) {
                                 cell.forward(exec, rows, std::span(state, kWidth), h);
                               },
                               kWidth, kWidth, kWidth};
    TestExec exec(2);
    const auto h = run_layer(exec.get(), layer, x, {5});
    CHECK(relative_difference(h, naive_sru(Matrix(5, kWidth, x), w.values(), b)) < 2e-6);
    check_same_bits(layer, x);

    auto in_place = x;
    std::vector<float> state(kWidth);
    const Rows rows{in_place.data(), 5, kWidth, kWidth};
    cell.forward(exec.get(), rows, std::span(state), rows);
    CHECK(in_place == h);
  }
}

TEST_CASE("SruBranch: norm, in, cells and out, added to what is there") {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const std::size_t n_cells : {1, 2, 3}) {
      const DenseKernels& kernels = dense_kernels(isa_from_environment());
      const auto scale = random_floats(kD, 1);
      const auto shift = random_floats(kD, 2);
      const StoredWeight in(dtype, kWidth, kD, 3, 0.2F);
      const StoredWeight out(dtype, kD, kWidth, 4, 0.2F);
      const auto bias = random_floats(3 * kWidth, 5);
      const Vector in_bias(bias.begin(), bias.begin() + kWidth);
      const Vector out_bias(bias.begin(), bias.begin() + kD);
      std::vector<StoredWeight> gates;
      std::vector<SruCell> cells;
      for (std::size_t i = 0; i < n_cells; ++i) {
        gates.emplace_back(DType::kF32, 3 * kWidth, kWidth, static_cast<std::uint32_t>(6 + i), 0.5F);
      }
      for (const StoredWeight& w : gates) cells.emplace_back(Linear(kernels, w.view(), bias.data()));
      RecurrentLayout layout;
      const SruBranch branch(Norm(kernels, kD, scale.data(), shift.data(), true, 1e-6F),
                             Linear(kernels, in.view(), bias.data()), cells,
                             Linear(kernels, out.view(), bias.data()), layout);
      CHECK(layout.size() == n_cells * kWidth);

      const std::size_t n = 4;
      const auto x = random_floats(n * kD, 9);
      Matrix h = naive_linear(naive_layer_norm(Matrix(n, kD, x), scale, shift, 1e-6), in.values(), in_bias);
      for (const StoredWeight& w : gates) h = naive_sru(h, w.values(), bias);
      Matrix expected = naive_linear(h, out.values(), out_bias);
      for (double& v : expected.data) v += 1.0;

      const LayerUnderTest layer{[&](Exec& exec, ConstRows rows, float* state, Rows y) {
                                   for (std::size_t t = 0; t < y.n; ++t) std::fill_n(y.row(t), kD, 1.0F);
                                   branch.forward_add(exec, rows, state, y);
                                 },
                                 kD, kD, layout.size()};
      TestExec exec(2);
      CHECK(relative_difference(run_layer(exec.get(), layer, x, {n}), expected) < tolerance(dtype));
      check_same_bits(layer, x);
    }
  }
}

TEST_CASE("SRU: widths that do not fit are refused") {
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  const StoredWeight w(DType::kF32, 8, 4, 1);
  const Linear map(kernels, w.view(), nullptr);
  expect_error(ErrorCode::kBadArgument, "found [8, 4]", [&] { SruCell cell(map); });
  RecurrentLayout layout;
  const std::vector<float> scale(4);
  const Norm norm(kernels, 4, scale.data(), nullptr, false, 1e-6F);
  expect_error(ErrorCode::kBadArgument, "0 cells", [&] { SruBranch(norm, map, {}, map, layout); });
  CHECK(layout.size() == 0);
}

}  // namespace
}  // namespace terrace::test
