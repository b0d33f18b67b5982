// SPDX-License-Identifier: Apache-2.0
#include "sparse/depth_router.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/layer_runs.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr std::size_t kWidth = 37;
constexpr std::size_t kPredictor = 11;
constexpr std::size_t kRows = 50;

ConstRows rows_of(const std::vector<float>& x) { return {x.data(), x.size() / kWidth, kWidth, kWidth}; }

struct Choice {
  std::vector<std::uint32_t> chosen;
  std::vector<float> factor;
  bool operator==(const Choice&) const = default;
};

struct Case {
  explicit Case(const DenseKernels& kernels, bool has_predictor = true)
      : router(DType::kF32, 1, kWidth, 1),
        in(DType::kF32, kPredictor, kWidth, 2),
        out(DType::kF32, 1, kPredictor, 3),
        in_bias(random_floats(kPredictor, 4)),
        out_bias(random_floats(1, 5)),
        layer(Linear(kernels, router.view(), nullptr),
              has_predictor ? Linear(kernels, in.view(), in_bias.data()) : Linear(),
              has_predictor ? Linear(kernels, out.view(), out_bias.data()) : Linear()) {}

  Choice choose(Exec& exec, ConstRows x) const {
    Choice c{std::vector<std::uint32_t>(x.n), std::vector<float>(x.n)};
    const std::size_t n = layer.choose(exec, x, c.chosen.data(), c.factor.data());
    c.chosen.resize(n);
    c.factor.resize(n);
    return c;
  }

  StoredWeight router, in, out;
  std::vector<float> in_bias, out_bias;
  DepthRouter layer;
};

TEST_CASE("DepthRouter: tokens and factors are those of the formula in double, for every ISA") {
  TestExec exec(2);
  const auto x = random_floats(kRows * kWidth, 6);
  const Matrix rows(kRows, kWidth, x);
  for (const DenseKernels* kernels : available_dense_kernels()) {
    for (const bool has_predictor : {true, false}) {
      CAPTURE(kernels->name);
      CAPTURE(has_predictor);
      const Case c(*kernels, has_predictor);
      const Matrix r = naive_linear(rows, c.router.values(), {});
      Matrix h = naive_linear(rows, c.in.values(), c.in_bias);
      for (std::size_t t = 0; t < kRows; ++t) {
        for (std::size_t j = 0; j < kPredictor; ++j) h(t, j) = std::max(h(t, j), 0.0);
      }
      const Matrix s = has_predictor ? naive_linear(h, c.out.values(), c.out_bias) : r;
      const Choice found = c.choose(exec.get(), rows_of(x));
      std::size_t i = 0;
      for (std::size_t t = 0; t < kRows; ++t) {
        REQUIRE(std::abs(s(t, 0)) > 1e-5);  // else rounding might decide
        if (s(t, 0) < 0) continue;
        REQUIRE(i < found.chosen.size());
        CHECK(found.chosen[i] == t);
        CHECK(found.factor[i] == doctest::Approx(r(t, 0)).epsilon(1e-5));
        ++i;
      }
      CHECK(i == found.chosen.size());
      CHECK(i > 0);
      CHECK(i < kRows);
    }
  }
}

TEST_CASE("DepthRouter: a token is judged alike alone and among others, by any number of threads") {
  const auto x = random_floats(kRows * kWidth, 7);
  for (const DenseKernels* kernels : available_dense_kernels()) {
    CAPTURE(kernels->name);
    const Case c(*kernels);
    TestExec one(1);
    Choice by_token;
    for (std::size_t t = 0; t < kRows; ++t) {
      const Choice single = c.choose(one.get(), rows_of(x).slice(t, 1));
      if (single.chosen.empty()) continue;
      by_token.chosen.push_back(static_cast<std::uint32_t>(t));
      by_token.factor.push_back(single.factor[0]);
    }
    for (const unsigned n_threads : {1U, 2U, 5U}) {
      TestExec exec(n_threads);
      CHECK(c.choose(exec.get(), rows_of(x)) == by_token);
    }
  }
}

TEST_CASE("DepthRouter: a token that is not a number passes by") {
  TestExec exec(1);
  const std::vector<float> x(2 * kWidth, std::numeric_limits<float>::quiet_NaN());
  for (const bool has_predictor : {true, false}) {
    Case c(dense_kernels(Isa::kScalar), has_predictor);
    c.out_bias[0] = 1;  // enough for a token of which nothing else is left
    CHECK(c.choose(exec.get(), rows_of(x)).chosen.empty());
  }
}

}  // namespace
}  // namespace terrace::test
