// SPDX-License-Identifier: Apache-2.0
#include "tests/support/layer_runs.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/support/tolerance.h"

namespace terrace::test {
namespace {

constexpr float kUntouched = -12345.0F;

struct Outcome {
  std::vector<float> y;
  std::vector<float> state;
};

Outcome run(Exec& exec, const LayerUnderTest& layer, const std::vector<float>& x,
            const std::vector<std::size_t>& calls, std::size_t gap) {
  const std::size_t n = x.size() / layer.d_in;
  const std::size_t stride = layer.d_out + gap;
  std::vector<float> y(n * stride, kUntouched);
  Outcome outcome;
  outcome.state.assign(layer.state_size + 1, 0.0F);
  std::size_t t = 0;
  for (const std::size_t rows : calls) {
    layer.forward(exec, {x.data() + t * layer.d_in, rows, layer.d_in, layer.d_in}, outcome.state.data(),
                  {y.data() + t * stride, rows, layer.d_out, stride});
    t += rows;
  }
  REQUIRE(t == n);
  for (std::size_t r = 0; r < n; ++r) {
    const float* const row = y.data() + r * stride;
    outcome.y.insert(outcome.y.end(), row, row + layer.d_out);
    CHECK(std::all_of(row + layer.d_out, row + stride, [](float v) { return v == kUntouched; }));
  }
  return outcome;
}

}  // namespace

std::vector<float> run_layer(Exec& exec, const LayerUnderTest& layer, const std::vector<float>& x,
                             const std::vector<std::size_t>& calls, std::size_t gap) {
  return run(exec, layer, x, calls, gap).y;
}

std::vector<std::vector<std::size_t>> all_cuts(std::size_t n) {
  std::vector<std::vector<std::size_t>> result;
  for (std::size_t mask = 0; mask < std::size_t{1} << (n - 1); ++mask) {
    std::vector<std::size_t> cut{1};
    for (std::size_t i = 0; i + 1 < n; ++i) {
      if (mask >> i & 1) {
        cut.push_back(1);
      } else {
        ++cut.back();
      }
    }
    result.push_back(cut);
  }
  return result;
}

void check_same_bits(const LayerUnderTest& layer, const std::vector<float>& x) {
  const std::size_t n = x.size() / layer.d_in;
  Outcome expected;
  {
    TestExec exec(1);
    expected = run(exec.get(), layer, x, std::vector<std::size_t>(n, 1), 0);
  }
  for (const unsigned n_threads : {1U, 2U, 8U}) {
    TestExec exec(n_threads);
    for (const auto& cut : all_cuts(n)) {
      for (const std::size_t gap : {std::size_t{0}, std::size_t{5}}) {
        CAPTURE(n_threads);
        CAPTURE(cut);
        const Outcome outcome = run(exec.get(), layer, x, cut, gap);
        CHECK(same_bits(outcome.y, expected.y));
        CHECK(same_bits(outcome.state, expected.state));
      }
    }
  }
}

}  // namespace terrace::test
