// SPDX-License-Identifier: Apache-2.0
#include "sparse/block_ffn.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr std::size_t kD = 128;
constexpr std::size_t kExperts = 5;
constexpr std::size_t kUnitsPerExpert = 37;

struct Case {
  Case(const DenseKernels& kernels, DType dtype, bool multiply)
      : router(dtype, kExperts, kD, 1, 0.3F),
        units(dtype, 2 * kExperts * kUnitsPerExpert, kD, 2, 0.2F),
        bias(random_floats(kD, 3)),
        layer(kernels, router.view(), units.view(), bias.data(), multiply) {}

  LayerUnderTest under_test() const {
    return {[this](Exec& exec, ConstRows x, float*, Rows y) { layer.forward(exec, x, y); }, kD, kD, 0};
  }

  StoredWeight router;
  StoredWeight units;
  std::vector<float> bias;
  BlockFfn layer;
};

TEST_CASE("BlockFfn: Block and Switch agree with the formula in double, in every dtype and ISA") {
  TestExec exec(2);
  for (const DenseKernels* kernels : available_dense_kernels()) {
    for (const DType dtype : kAllDtypes) {
      for (const bool multiply : {false, true}) {
        CAPTURE(kernels->name);
        CAPTURE(dtype_name(dtype));
        CAPTURE(multiply);
        const Case c(*kernels, dtype, multiply);
        const std::size_t n = 5;
        const auto x = random_floats(n * kD, 4);
        const Matrix in(n, kD, x);
        std::vector<float> y(n * kD);
        std::vector<std::uint32_t> experts(n);
        c.layer.forward(exec.get(), {x.data(), n, kD, kD}, {y.data(), n, kD, kD}, experts.data());

        const Matrix z = naive_linear(in, c.router.values(), {});
        std::vector<std::uint32_t> active;
        std::vector<double> gains;
        for (std::size_t t = 0; t < n; ++t) {
          double sum = 0.0;
          for (std::size_t e = 0; e < kExperts; ++e) {
            CHECK(z(t, experts[t]) >= z(t, e) - 20 * tolerance(dtype));
            sum += std::exp(z(t, e) - z(t, experts[t]));
          }
          for (std::uint32_t i = 0; i < kUnitsPerExpert; ++i) {
            active.push_back(experts[t] * kUnitsPerExpert + i);
            gains.push_back(multiply ? 1.0 / sum : 1.0);
          }
        }
        CHECK(relative_difference(y, naive_units(in, c.units.values(), c.bias, active, gains)) <
              4 * tolerance(dtype));
      }
    }
  }
}

TEST_CASE("BlockFfn: any cut into calls and any number of threads gives the same bits") {
  for (const DType dtype : kAllDtypes) {
    for (const bool multiply : {false, true}) {
      const Case c(dense_kernels(isa_from_environment()), dtype, multiply);
      check_same_bits(c.under_test(), random_floats(4 * kD, 5));
    }
  }
}

TEST_CASE("BlockFfn: units that no router divides are refused") {
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  const StoredWeight router(DType::kF32, 3, 32, 1);
  const StoredWeight units(DType::kF32, 8, 32, 2);
  expect_error(ErrorCode::kBadArgument, "units [8, 32]",
               [&] { BlockFfn(kernels, router.view(), units.view(), nullptr, false); });
}

}  // namespace
}  // namespace terrace::test
