// SPDX-License-Identifier: Apache-2.0
#include "sparse/expert_ffn.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/feed_forward.h"
#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr std::size_t kD = 128;
constexpr std::size_t kExperts = 5;

/// What the formula has beside router, units and the output's bias.
struct Form {
  const char* name;
  bool gated;
  bool multiply;
  bool biased;  ///< router, units and experts as a whole
};
constexpr Form kForms[] = {{"block", false, false, false},
                           {"switch", false, true, false},
                           {"experts", false, false, true},
                           {"gated experts", true, false, true}};

struct Case {
  Case(const DenseKernels& kernels, DType dtype, const Form& f, std::size_t units_per_expert = 37)
      : form(f),
        n_units(units_per_expert),
        router(dtype, kExperts, kD, 1, 0.3F),
        units(dtype, (f.gated ? 3 : 2) * kExperts * n_units, kD, 2, 0.2F),
        bias(random_floats(kD, 3)),
        router_bias(random_floats(kExperts, 6)),
        unit_bias(random_floats(kExperts * n_units, 7)),
        offsets(dtype, kExperts, kD, 10),
        layer(kernels,
              {router.view(), f.biased ? router_bias.data() : nullptr, units.view(),
               f.biased ? unit_bias.data() : nullptr, f.biased ? offsets.view() : WeightView(), bias.data()},
              f.gated, f.multiply) {}

  LayerUnderTest under_test(std::size_t n_active) const {
    return {
        [this, n_active](Exec& exec, ConstRows x, float*, Rows y) { layer.forward(exec, x, y, n_active); },
        kD, kD, 0};
  }

  /// Row `unit` of run `run` of an expert, from the end: 0 = w2, 1 = w1, 2 = gate.
  std::size_t row(std::size_t expert, std::size_t run_from_end, std::size_t unit) const {
    const std::size_t runs = form.gated ? 3 : 2;
    return (expert * runs + runs - 1 - run_from_end) * n_units + unit;
  }
  double dot(const Matrix& x, std::size_t t, std::size_t unit_row) const {
    double sum = 0;
    for (std::size_t c = 0; c < kD; ++c) sum += x(t, c) * units.values()(unit_row, c);
    return sum;
  }

  Form form;
  std::size_t n_units;
  StoredWeight router;
  StoredWeight units;
  std::vector<float> bias;
  std::vector<float> router_bias;
  std::vector<float> unit_bias;
  StoredWeight offsets;
  ExpertFfn layer;
};

/// The formula for the experts that were chosen, [n, k].
Matrix naive_experts(const Case& c, const Matrix& x, const Matrix& z,
                     const std::vector<std::uint32_t>& experts) {
  const std::size_t k = experts.size() / x.rows;
  Matrix y(x.rows, kD);
  for (std::size_t t = 0; t < x.rows; ++t) {
    for (std::size_t i = 0; i < kD; ++i) y(t, i) = c.bias[i];
    for (std::size_t j = 0; j < k; ++j) {
      const std::size_t e = experts[t * k + j];
      double gain = 1;
      if (c.form.multiply) {
        double sum = 0;
        for (std::size_t other = 0; other < kExperts; ++other) sum += std::exp(z(t, other) - z(t, e));
        gain = 1 / sum;
      }
      if (c.form.biased) {
        for (std::size_t i = 0; i < kD; ++i) y(t, i) += c.offsets.values()(e, i);
      }
      for (std::size_t u = 0; u < c.n_units; ++u) {
        double a = c.dot(x, t, c.row(e, 1, u)) + (c.form.biased ? c.unit_bias[e * c.n_units + u] : 0);
        a *= gain;
        a = c.form.gated ? a * std::max(0.0, c.dot(x, t, c.row(e, 2, u))) : std::max(0.0, a);
        for (std::size_t i = 0; i < kD; ++i) y(t, i) += a * c.units.values()(c.row(e, 0, u), i);
      }
    }
  }
  return y;
}

TEST_CASE("ExpertFfn agrees with the formula in double, in every form, dtype and ISA") {
  TestExec exec(2);
  constexpr std::size_t kRows = 19;  // several packs of some expert
  const auto x = random_floats(kRows * kD, 4);
  const Matrix in(kRows, kD, x);
  for (const DenseKernels* kernels : available_dense_kernels()) {
    for (const DType dtype : kAllDtypes) {
      for (const Form& form : kForms) {
        for (const std::size_t n_active : {1, 3, 5}) {
          CAPTURE(kernels->name);
          CAPTURE(dtype_name(dtype));
          CAPTURE(form.name);
          CAPTURE(n_active);
          const Case c(*kernels, dtype, form);
          std::vector<float> y(kRows * kD);
          std::vector<std::uint32_t> experts(kRows * n_active);
          c.layer.forward(exec.get(), {x.data(), kRows, kD, kD}, {y.data(), kRows, kD, kD}, n_active,
                          experts.data());

          const Matrix z = naive_linear(in, c.router.values(), form.biased ? c.router_bias : Vector());
          for (std::size_t t = 0; t < kRows; ++t) {
            const std::uint32_t* const own = experts.data() + t * n_active;
            CHECK(std::adjacent_find(own, own + n_active, std::greater_equal<>()) == own + n_active);
            for (std::uint32_t e = 0; e < kExperts; ++e) {
              if (std::find(own, own + n_active, e) != own + n_active) continue;
              for (std::size_t j = 0; j < n_active; ++j)
                CHECK(z(t, own[j]) >= z(t, e) - 20 * tolerance(dtype));
            }
          }
          CHECK(relative_difference(y, naive_experts(c, in, z, experts)) < 8 * tolerance(dtype));
        }
      }
    }
  }
}

TEST_CASE("ExpertFfn: any cut into calls and any number of threads gives the same bits") {
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  for (const DType dtype : kAllDtypes) {
    for (const Form& form : kForms) {
      for (const std::size_t n_active : {1, 4}) {
        const Case c(kernels, dtype, form);
        check_same_bits(c.under_test(n_active), random_floats(4 * kD, 5));
      }
    }
  }
}

TEST_CASE("ExpertFfn: packed rows and phases in several chunks give the bits of single tokens") {
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  constexpr std::size_t kRows = 96;
  constexpr std::size_t kManyUnits = 208;
  const auto x = random_floats(kRows * kD, 8);
  for (const DType dtype : kAllDtypes) {
    for (const Form& form : kForms) {
      CAPTURE(dtype_name(dtype));
      CAPTURE(form.name);
      const Case c(kernels, dtype, form, kManyUnits);
      TestExec one(1), three(3);
      const auto by_ones = run_layer(one.get(), c.under_test(2), x, std::vector<std::size_t>(kRows, 1));
      CHECK(run_layer(three.get(), c.under_test(2), x, {kRows}) == by_ones);
      CHECK(run_layer(one.get(), c.under_test(2), x, {40, 56}) == by_ones);
    }
  }
}

TEST_CASE("ExpertFfn: with all experts it is the dense layer") {
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  TestExec exec(2);
  for (const Form& form : {kForms[2], kForms[3]}) {
    const Case c(kernels, DType::kF32, form);
    const std::size_t d_ff = c.layer.d_ff();
    std::vector<float> w1(d_ff * kD), w2(kD * d_ff), gate(d_ff * kD);
    for (std::size_t u = 0; u < d_ff; ++u) {
      for (std::size_t i = 0; i < kD; ++i) {
        const auto at = [&](std::size_t run) {
          return static_cast<float>(c.units.values()(c.row(u / c.n_units, run, u % c.n_units), i));
        };
        w1[u * kD + i] = at(1);
        w2[i * d_ff + u] = at(0);
        if (form.gated) gate[u * kD + i] = at(2);
      }
    }
    std::vector<float> bias = c.bias;  // with all that the experts add
    for (std::size_t i = 0; i < bias.size() * kExperts; ++i)
      bias[i % kD] += static_cast<float>(c.offsets.values()(i / kD, i % kD));
    const FeedForward dense(Linear(kernels, f32_view(w1, d_ff), c.unit_bias.data()),
                            Linear(kernels, f32_view(w2, kD), bias.data()),
                            form.gated ? Linear(kernels, f32_view(gate, d_ff), nullptr) : Linear(),
                            Activation::kRelu);
    const auto x = random_floats(3 * kD, 9);
    std::vector<float> of_dense(3 * kD), of_experts(3 * kD);
    dense.forward(exec.get(), {x.data(), 3, kD, kD}, {of_dense.data(), 3, kD, kD});
    c.layer.forward(exec.get(), {x.data(), 3, kD, kD}, {of_experts.data(), 3, kD, kD}, kExperts);
    CHECK(relative_difference(of_experts, Matrix(3, kD, of_dense)) < 1e-5);
  }
}

TEST_CASE("ExpertFfn: ties go to the first experts, NaN logits to the last") {
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  TestExec exec(1);
  const Case c(kernels, DType::kF32, kForms[2], 4);
  const std::vector<float> zeros(kExperts * kD);
  const auto chosen = [&](const std::vector<float>& logits, std::size_t n_active) {
    const ExpertFfn layer(kernels,
                          {f32_view(zeros, kExperts), logits.data(), c.units.view(), nullptr, {}, nullptr},
                          false, false);
    std::vector<float> x(kD, 1.0F), y(kD);
    std::vector<std::uint32_t> experts(n_active);
    layer.forward(exec.get(), {x.data(), 1, kD, kD}, {y.data(), 1, kD, kD}, n_active, experts.data());
    return experts;
  };
  using Experts = std::vector<std::uint32_t>;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  CHECK(chosen({1, 2, 2, 2, 0}, 1) == Experts{1});
  CHECK(chosen({1, 2, 2, 2, 0}, 2) == Experts{1, 2});
  CHECK(chosen({1, kNan, 3, kNan, 2}, 3) == Experts{0, 2, 4});
  CHECK(chosen({1, kNan, 3, kNan, 2}, 4) == Experts{0, 1, 2, 4});
  CHECK(chosen(std::vector<float>(kExperts, kNan), 1) == Experts{0});
}

TEST_CASE("ExpertFfn: shapes that do not fit are refused") {
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  const StoredWeight router(DType::kF32, 3, 32, 1);
  const StoredWeight eight(DType::kF32, 8, 32, 2);
  const StoredWeight twelve(DType::kF32, 12, 32, 3);
  const auto build = [&](const StoredWeight& units, const WeightView& offsets) {
    ExpertFfn(kernels, {router.view(), nullptr, units.view(), nullptr, offsets, nullptr}, false, false);
  };
  build(twelve, router.view());
  expect_error(ErrorCode::kBadArgument, "units [8, 32]", [&] { build(eight, {}); });
  expect_error(ErrorCode::kBadArgument, "offsets [8, 32]", [&] { build(twelve, eight.view()); });
}

}  // namespace
}  // namespace terrace::test
