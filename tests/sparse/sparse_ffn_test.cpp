// SPDX-License-Identifier: Apache-2.0
#include "sparse/sparse_ffn.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "sparse/unit_sums.h"
#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

struct Options {
  DType dtype = DType::kF32;
  std::size_t d_model = 128;
  std::size_t n_blocks = 20;
  std::size_t block_size = 16;
  std::size_t d_lowrank = 64;
  bool multiply = false;

  std::size_t d_ff() const { return n_blocks * block_size; }
};

struct Case {
  Case(const DenseKernels& kernels, const Options& o)
      : options(o),
        down(o.dtype, o.d_lowrank, o.d_model, 1),
        up(o.dtype, o.d_ff(), o.d_lowrank, 2),
        units(o.dtype, 2 * o.d_ff(), o.d_model, 3, 0.2F),
        controller_bias(random_floats(o.d_ff(), 4)),
        bias(random_floats(o.d_model, 5)),
        layer(kernels, Controller(kernels, down.view(), up.view(), controller_bias.data(), o.block_size),
              units.view(), bias.data(), o.multiply) {}

  LayerUnderTest under_test(std::size_t width) const {
    return {[this, width](Exec& exec, ConstRows x, float*, Rows y) { layer.forward(exec, x, y, width); },
            options.d_model, options.d_model, 0};
  }
  LayerUnderTest under_test() const { return under_test(options.d_ff()); }

  std::vector<std::uint32_t> active(Exec& exec, const std::vector<float>& x, std::size_t width) const {
    const std::size_t n = x.size() / options.d_model;
    std::vector<float> y(x.size());
    std::vector<std::uint32_t> units_of(n * width / options.block_size);
    layer.forward(exec, {x.data(), n, options.d_model, options.d_model},
                  {y.data(), n, options.d_model, options.d_model}, width, units_of.data());
    return units_of;
  }

  Options options;
  StoredWeight down;
  StoredWeight up;
  StoredWeight units;
  std::vector<float> controller_bias;
  std::vector<float> bias;
  SparseFfn layer;
};

std::vector<Options> all_options(DType dtype) {
  return {{.dtype = dtype},
          {.dtype = dtype, .multiply = true},
          {.dtype = dtype, .d_model = 64, .n_blocks = 3, .block_size = 7, .d_lowrank = 64},
          {.dtype = dtype, .d_model = 192, .n_blocks = 150, .block_size = 4, .d_lowrank = 64}};
}

double softmax_at(const Matrix& z, std::size_t t, std::size_t first, std::size_t n, std::size_t at) {
  double sum = 0.0;
  for (std::size_t e = 0; e < n; ++e) sum += std::exp(z(t, first + e) - z(t, at));
  return 1.0 / sum;
}

TEST_CASE(
    "SparseFfn: picks the best unit of each block, and computes with exactly those, in every dtype and ISA") {
  TestExec exec(2);
  for (const DenseKernels* kernels : available_dense_kernels()) {
    for (const DType dtype : kAllDtypes) {
      for (const Options& o : all_options(dtype)) {
        CAPTURE(kernels->name);
        CAPTURE(dtype_name(dtype));
        CAPTURE(o.n_blocks);
        const Case c(*kernels, o);
        const std::size_t n = 10;  // more than one batch of tokens
        const auto x = random_floats(n * o.d_model, 6);
        const Matrix in(n, o.d_model, x);
        const auto active = c.active(exec.get(), x, o.d_ff());
        const Matrix z = naive_controller(in, c.down.values(), c.up.values(), c.controller_bias);
        double largest = 0.0;
        for (const double logit : z.data) largest = std::max(largest, std::abs(logit));

        std::vector<double> gains;
        for (std::size_t t = 0; t < n; ++t) {
          for (std::size_t b = 0; b < o.n_blocks; ++b) {
            const std::uint32_t unit = active[t * o.n_blocks + b];
            REQUIRE(unit / o.block_size == b);  // one per block, in order
            // The argmax is discontinuous: another unit may win by rounding only.
            for (std::size_t e = 0; e < o.block_size; ++e) {
              CHECK(z(t, unit) >= z(t, b * o.block_size + e) - 2 * tolerance(dtype) * largest);
            }
            if (o.multiply) gains.push_back(softmax_at(z, t, b * o.block_size, o.block_size, unit));
          }
        }
        // The softmax magnifies the error of a logit: exp(z).
        const double allowed = o.multiply ? 40 * tolerance(dtype) : 2 * tolerance(dtype);
        CHECK(relative_difference(run_layer(exec.get(), c.under_test(), x, {n}),
                                  naive_units(in, c.units.values(), c.bias, active, gains)) < allowed);
      }
    }
  }
}

TEST_CASE("SparseFfn: any cut into calls and any number of threads gives the same bits") {
  for (const DType dtype : kAllDtypes) {
    for (const Options& o : all_options(dtype)) {
      CAPTURE(dtype_name(dtype));
      CAPTURE(o.n_blocks);
      const Case c(dense_kernels(isa_from_environment()), o);
      check_same_bits(c.under_test(), random_floats(4 * o.d_model, 7));
      check_same_bits(c.under_test(o.d_ff() / 2 / o.block_size * o.block_size),
                      random_floats(3 * o.d_model, 8));
    }
  }
}

TEST_CASE("SparseFfn: blocks of one unit are a dense feed-forward layer") {
  const Case c(dense_kernels(isa_from_environment()), {.n_blocks = 96, .block_size = 1});
  const auto x = random_floats(2 * 128, 9);
  std::vector<std::uint32_t> all;
  for (std::uint32_t t = 0; t < 2; ++t) {
    for (std::uint32_t u = 0; u < 96; ++u) all.push_back(u);
  }
  TestExec exec(2);
  CHECK(c.active(exec.get(), x, 96) == all);
  CHECK(relative_difference(run_layer(exec.get(), c.under_test(), x, {2}),
                            naive_units(Matrix(2, 128, x), c.units.values(), c.bias, all, {})) <
        tolerance(DType::kF32));
}

TEST_CASE("SparseFfn: a narrower width keeps the picks and sums a prefix of the blocks") {
  TestExec exec(2);
  for (const DType dtype : {DType::kF32, DType::kQ8}) {
    const Options o{.dtype = dtype, .n_blocks = 40, .block_size = 8};
    const Case c(dense_kernels(isa_from_environment()), o);
    const auto x = random_floats(3 * o.d_model, 10);
    const Matrix in(3, o.d_model, x);
    const auto full = c.active(exec.get(), x, o.d_ff());
    for (std::size_t n_blocks = 1; n_blocks <= o.n_blocks; ++n_blocks) {
      CAPTURE(n_blocks);
      std::vector<std::uint32_t> prefix;
      for (std::size_t t = 0; t < 3; ++t) {
        const auto row = full.begin() + static_cast<std::ptrdiff_t>(t * o.n_blocks);
        prefix.insert(prefix.end(), row, row + static_cast<std::ptrdiff_t>(n_blocks));
      }
      const std::size_t width = n_blocks * o.block_size;
      CHECK(c.active(exec.get(), x, width) == prefix);
      CHECK(relative_difference(run_layer(exec.get(), c.under_test(width), x, {3}),
                                naive_units(in, c.units.values(), c.bias, prefix, {})) <
            2 * tolerance(dtype));
    }
  }
}

TEST_CASE("SparseFfn: blocks beyond a width do not change a bit of what the width gives") {
  // Widths that end with a group: the wide layer's first groups are the narrow layer's.
  const Options o{.n_blocks = 40, .block_size = 8};
  Case c(dense_kernels(isa_from_environment()), o);
  const auto x = random_floats(o.d_model, 11);
  TestExec exec(1);
  const std::size_t width = 2 * UnitSums::group_of(o.n_blocks) * o.block_size;
  const auto before = run_layer(exec.get(), c.under_test(width), x, {1});
  const Case other(dense_kernels(isa_from_environment()), o);
  auto* const beyond =
      static_cast<float*>(const_cast<void*>(static_cast<const void*>(c.units.view().row(2 * width))));
  for (std::size_t i = 0; i < o.d_model; ++i) beyond[i] = std::numeric_limits<float>::quiet_NaN();
  CHECK(run_layer(exec.get(), c.under_test(width), x, {1}) == before);
  CHECK(run_layer(exec.get(), other.under_test(width), x, {1}) == before);
}

TEST_CASE("SparseFfn: equal logits pick the first unit") {
  Options o{.n_blocks = 4, .block_size = 16};
  Case c(dense_kernels(isa_from_environment()), o);
  const std::vector<float> x(o.d_model, 0.0F);  // every logit is its bias
  std::fill(c.controller_bias.begin(), c.controller_bias.end(), 0.5F);
  TestExec exec(1);
  CHECK(c.active(exec.get(), x, o.d_ff()) == std::vector<std::uint32_t>{0, 16, 32, 48});
}

TEST_CASE("SparseFfn: NaN logits are passed over, a NaN input gives NaN and a valid pick") {
  Options o{.n_blocks = 4, .block_size = 16};
  Case c(dense_kernels(isa_from_environment()), o);
  TestExec exec(2);
  auto x = random_floats(o.d_model, 12);
  const auto picks = c.active(exec.get(), x, o.d_ff());
  const std::uint32_t loser = picks[1] == 16 ? 17 : 16;
  c.controller_bias[loser] = std::numeric_limits<float>::quiet_NaN();
  CHECK(c.active(exec.get(), x, o.d_ff()) == picks);

  std::fill(x.begin(), x.end(), std::numeric_limits<float>::quiet_NaN());
  CHECK(c.active(exec.get(), x, o.d_ff()) == std::vector<std::uint32_t>{0, 16, 32, 48});
  for (const float y : run_layer(exec.get(), c.under_test(), x, {1})) CHECK(std::isnan(y));
}

TEST_CASE("SparseFfn: the w2 row of a silent unit is not read") {
  Options o{.n_blocks = 8, .block_size = 2};
  const Case c(dense_kernels(isa_from_environment()), o);
  const auto x = random_floats(o.d_model, 13);
  TestExec exec(1);
  const auto active = c.active(exec.get(), x, o.d_ff());
  const auto before = run_layer(exec.get(), c.under_test(), x, {1});
  std::size_t n_silent = 0;
  for (const std::uint32_t unit : active) {
    double a = 0.0;
    for (std::size_t i = 0; i < o.d_model; ++i) a += c.units.values()(2 * unit, i) * x[i];
    if (a >= 0.0) continue;
    ++n_silent;
    auto* const w2 =
        static_cast<float*>(const_cast<void*>(static_cast<const void*>(c.units.view().row(2 * unit + 1))));
    w2[0] = std::numeric_limits<float>::quiet_NaN();
  }
  REQUIRE(n_silent > 0);
  CHECK(run_layer(exec.get(), c.under_test(), x, {1}) == before);
}

TEST_CASE("SparseFfn: shapes that do not fit are refused") {
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  const StoredWeight down(DType::kF32, 8, 32, 1);
  const StoredWeight up(DType::kF32, 48, 8, 2);
  const StoredWeight units(DType::kF32, 96, 32, 3);
  const std::vector<float> bias(48);
  expect_error(ErrorCode::kBadArgument, "blocks of 7",
               [&] { Controller(kernels, down.view(), up.view(), bias.data(), 7); });
  expect_error(ErrorCode::kBadArgument, "down [96, 32]",
               [&] { Controller(kernels, units.view(), up.view(), bias.data(), 8); });
  const Controller controller(kernels, down.view(), up.view(), bias.data(), 8);
  expect_error(ErrorCode::kBadArgument, "found [48, 8]",
               [&] { SparseFfn(kernels, controller, up.view(), nullptr, false); });
}

}  // namespace
}  // namespace terrace::test
