// SPDX-License-Identifier: Apache-2.0
#include "attention/favor.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "tests/support/allocation_counter.h"
#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/naive_attention.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr std::size_t kHeads = 3, kD = 7;
constexpr std::size_t kWidth = kHeads * kD;

/// q, k and v side by side in one row, so that the layer tests can drive it.
LayerUnderTest causal_layer(const FavorAttention& favor) {
  LayerUnderTest layer;
  layer.d_in = 3 * kWidth;
  layer.d_out = kWidth;
  layer.state_size = favor.state_floats();
  layer.forward = [&favor](Exec& exec, ConstRows x, float* state, Rows y) {
    const auto part = [&](std::size_t i) { return ConstRows(x.data + i * kWidth, x.n, kWidth, x.stride); };
    favor.causal(exec, std::span(state, favor.state_floats()), part(0), part(1), part(2), y);
  };
  return layer;
}

TEST_CASE("causal favor: any cut into calls and any number of threads give the same bits") {
  const FavorAttention favor(attention_kernels(isa_from_environment()), kHeads, kD);
  check_same_bits(causal_layer(favor), random_floats(7 * 3 * kWidth, 3));
}

TEST_CASE("causal favor agrees with its definition, and every instruction set with the scalar kernels") {
  constexpr std::size_t n = 200;
  const auto x = random_floats(n * 3 * kWidth, 5);
  Matrix expected(n, kWidth);
  const auto feature = [&](std::size_t t, std::size_t part, std::size_t c) {
    return std::max(0.0, static_cast<double>(x[t * 3 * kWidth + part * kWidth + c])) + 1e-3;
  };
  for (std::size_t t = 0; t < n; ++t) {
    for (std::size_t h = 0; h < kHeads; ++h) {
      double total = 0;
      for (std::size_t s = 0; s <= t; ++s) {
        double weight = 0;
        for (std::size_t d = 0; d < kD; ++d) weight += feature(t, 0, h * kD + d) * feature(s, 1, h * kD + d);
        total += weight;
        for (std::size_t d = 0; d < kD; ++d)
          expected(t, h * kD + d) += weight * x[s * 3 * kWidth + 2 * kWidth + h * kD + d];
      }
      for (std::size_t d = 0; d < kD; ++d) expected(t, h * kD + d) /= total;
    }
  }
  TestExec exec(2);
  std::vector<float> scalar;
  for (const Isa isa : available_isas()) {
    const FavorAttention favor(attention_kernels(isa), kHeads, kD);
    const auto y = run_layer(exec.get(), causal_layer(favor), x, {n});
    CHECK(relative_difference(y, expected) < 1e-5);
    if (scalar.empty()) scalar = y;
    CHECK(same_bits(y, scalar));
  }
}

TEST_CASE("bidirectional favor: threads do not matter, padding does not count, no key gives zeros") {
  constexpr std::size_t n = 50;
  const auto q = random_floats(n * kWidth, 1), v = random_floats(n * kWidth, 3),
             features = random_floats(12 * kD, 4);
  auto k = random_floats(n * kWidth, 2);
  for (const bool softmax : {false, true}) {
    const FavorAttention favor(attention_kernels(isa_from_environment()), kHeads, kD,
                               softmax ? features.data() : nullptr, softmax ? 12 : 0);
    std::vector<float> first;
    for (const unsigned n_threads : {1U, 2U, 8U}) {
      ThreadTeam team(n_threads);
      const ThreadTeam::Region region(team);
      Workspace ws(favor.workspace_bytes());
      Exec exec{team, ws};
      std::vector<float> y(n * kWidth);
      const AllocationCounter counter;
      std::size_t rows = 0;
      favor.full(exec, rows_of(q, kWidth), rows_of(k, kWidth), rows_of(v, kWidth), 33, rows_of(y, kWidth),
                 [&rows](std::size_t done) { rows += done; });
      CHECK(counter.allocations() == 0);
      CHECK(rows == n);
      if (first.empty()) first = y;
      CHECK(same_bits(first, y));
      k[40 * kWidth] += 5.0F;  // padding
    }
    TestExec exec(1);
    std::vector<float> y(n * kWidth, 1.0F);
    favor.full(exec.get(), rows_of(q, kWidth), rows_of(k, kWidth), rows_of(v, kWidth), 0, rows_of(y, kWidth));
    CHECK(y == std::vector<float>(n * kWidth, 0.0F));
  }
}

TEST_CASE("softmax features have no causal form") {
  const auto features = random_floats(12 * kD, 4);
  const FavorAttention favor(attention_kernels(isa_from_environment()), kHeads, kD, features.data(), 12);
  TestExec exec(1);
  std::vector<float> state(favor.state_floats()), x(kWidth), y(kWidth);
  expect_error(ErrorCode::kUnsupported, "no causal form", [&] {
    favor.causal(exec.get(), std::span(state), rows_of(x, kWidth), rows_of(x, kWidth), rows_of(x, kWidth),
                 rows_of(y, kWidth));
  });
}

}  // namespace
}  // namespace terrace::test
