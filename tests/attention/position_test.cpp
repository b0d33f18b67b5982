// SPDX-License-Identifier: Apache-2.0
#include "attention/position.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "attention/rotary.h"
#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/naive_attention.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr std::size_t kD = 16;

struct Weights {
  std::vector<float> table = random_floats(20 * kD, 1), small = random_floats(20 * 4, 2),
                     proj = random_floats(kD * 4, 3), digits = random_floats(4 * kD, 4),
                     start = random_floats(kD, 5), axis0 = random_floats(4 * 6, 6),
                     axis1 = random_floats(5 * 10, 7), map = random_floats(kD * kD, 8);

  std::vector<PositionEncoding> all_kinds() const {
    const auto linear = [](const std::vector<float>& w, std::size_t in) {
      return Linear(dense_kernels(isa_from_environment()),
                    {w.data(), nullptr, w.size() / in, in, in, DType::kF32}, nullptr);
    };
    std::vector<PositionEncoding> kinds;
    kinds.emplace_back();
    kinds.emplace_back(LearnedPosition(table.data(), 20, kD));
    kinds.emplace_back(LowRankPosition(small.data(), 20, linear(proj, 4)));
    kinds.emplace_back(SinCosPosition(kD));
    kinds.emplace_back(FixedBasePosition(digits.data(), start.data(), kD));
    kinds.emplace_back(AxialPosition({{axis0.data(), 4, 6}, {axis1.data(), 5, 10}}));
    kinds.emplace_back(InfinitePosition(linear(map, kD), 40));
    kinds.emplace_back(TimeBinPosition(3));
    return kinds;
  }
};

TEST_CASE(
    "a row's encoding depends on its position only: any cut and any number of threads, past the table's end "
    "too") {
  const Weights weights;
  const auto kinds = weights.all_kinds();
  for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
    CAPTURE(kind);
    const auto start = random_floats(30 * kD, 9);
    auto expected = start;
    {
      TestExec one(1);
      for (std::size_t t = 0; t < 30; ++t) kinds[kind].add(one.get(), rows_of(expected, kD).slice(t, 1), t);
    }
    CHECK((kind == 0) == same_bits(start, expected));
    for (const unsigned n_threads : {1U, 2U, 8U}) {
      TestExec exec(n_threads);
      auto x = start;
      kinds[kind].add(exec.get(), rows_of(x, kD).slice(0, 13), 0);
      kinds[kind].add(exec.get(), rows_of(x, kD).slice(13, 17), 13);
      CHECK(same_bits(x, expected));
    }
  }
}

TEST_CASE("positions past the end of a table take its last row") {
  const Weights weights;
  TestExec exec(1);
  for (const std::size_t kind : {1U, 2U, 5U}) {
    std::vector<float> last(kD), beyond(kD);
    weights.all_kinds()[kind].add(exec.get(), rows_of(last, kD), 19);
    weights.all_kinds()[kind].add(exec.get(), rows_of(beyond, kD), 1000);
    CHECK(same_bits(last, beyond));
  }
}

TEST_CASE("rotary scaling: all frequencies, or by how often they turn within the context of training") {
  CHECK(RotaryScaling{}.scaled(0.25) == 0.25);
  CHECK(RotaryScaling{.kind = RotaryScaling::Kind::kLinear, .factor = 4}.scaled(0.25) == 0.0625);
  const RotaryScaling llama{.kind = RotaryScaling::Kind::kLlama3,
                            .factor = 8,
                            .low_freq_factor = 1,
                            .high_freq_factor = 4,
                            .original_max_len = 100};
  const auto turning = [](double times) { return times * 2 * std::numbers::pi / 100; };
  CHECK(llama.scaled(turning(5)) == turning(5));
  CHECK(llama.scaled(turning(0.5)) == turning(0.5) / 8);
  // Half-way between 1 and 4 turns: the mean of both.
  CHECK(llama.scaled(turning(2.5)) == doctest::Approx((turning(2.5) + turning(2.5) / 8) / 2));

  TestExec exec(1);
  const auto start = random_floats(8, 4);
  auto scaled = start, slower = start;
  const std::vector<std::uint32_t> at{12}, third{3};
  const RotaryScaling linear{.kind = RotaryScaling::Kind::kLinear, .factor = 4};
  Rotary(8, 16, 100.0, false, linear).apply(exec.get(), rows_of(scaled, 8), std::span(at));
  Rotary(8, 16, 100.0, false).apply(exec.get(), rows_of(slower, 8), std::span(third));
  CHECK(relative_difference(scaled, Matrix(1, 8, slower)) < 1e-6);
}

TEST_CASE("rotary turns pairs of channels, half-split or interleaved, at any positions") {
  constexpr std::size_t d_head = 6, n_heads = 2, n = 9;
  const auto start = random_floats(n * d_head * n_heads, 3);
  const std::vector<std::uint32_t> positions{5, 0, 31, 2, 2, 17, 30, 1, 9};
  for (const bool interleaved : {false, true}) {
    for (const unsigned n_threads : {1U, 8U}) {
      TestExec exec(n_threads);
      const Rotary rotary(d_head, 32, 500.0, interleaved);
      auto x = start;
      rotary.apply(exec.get(), rows_of(x, d_head * n_heads), std::span(positions));
      Matrix expected(n, d_head * n_heads);
      for (std::size_t t = 0; t < n; ++t) {
        for (std::size_t h = 0; h < n_heads; ++h) {
          for (std::size_t j = 0; j < d_head / 2; ++j) {
            const std::size_t a = h * d_head + (interleaved ? 2 * j : j),
                              b = a + (interleaved ? 1 : d_head / 2);
            const double angle = positions[t] * std::pow(500.0, -2.0 * static_cast<double>(j) / d_head);
            const double xa = start[t * d_head * n_heads + a], xb = start[t * d_head * n_heads + b];
            expected(t, a) = xa * std::cos(angle) - xb * std::sin(angle);
            expected(t, b) = xb * std::cos(angle) + xa * std::sin(angle);
          }
        }
      }
      CHECK(relative_difference(x, expected) < 1e-6);
      for (std::size_t t = 0; t < n; ++t) {
        auto row = std::vector<float>(start.begin() + static_cast<std::ptrdiff_t>(t * 12),
                                      start.begin() + static_cast<std::ptrdiff_t>(t * 12 + 12));
        rotary.apply(exec.get(), rows_of(row, 12), positions[t]);
        CHECK(std::equal(row.begin(), row.end(), x.begin() + static_cast<std::ptrdiff_t>(t * 12)));
      }
    }
  }
  expect_error(ErrorCode::kBadConfig, "even head width, found 5", [] { Rotary(5, 4); });
  expect_error(ErrorCode::kBadConfig, "base", [] { Rotary(4, 4, 0.0); });
}

}  // namespace
}  // namespace terrace::test
