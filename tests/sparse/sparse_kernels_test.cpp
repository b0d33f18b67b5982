// SPDX-License-Identifier: Apache-2.0
#include "sparse/kernels/sparse_kernels.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::uint32_t pick(Isa isa, const std::vector<float>& z) {
  const std::vector<float> bias(z.size(), 0.0F);
  return sparse_kernels(isa).biased_argmax(z.data(), bias.data(), z.size());
}

TEST_CASE("biased_argmax: every ISA returns the scalar index at every length and alignment") {
  for (const Isa isa : available_isas()) {
    for (std::size_t n = 1; n <= 131; ++n) {
      for (std::size_t offset = 0; offset < 4; ++offset) {
        CAPTURE(isa_name(isa));
        CAPTURE(n);
        const auto z = random_floats(n + offset, static_cast<std::uint32_t>(n));
        const auto bias = random_floats(n + offset, static_cast<std::uint32_t>(n + 1));
        CHECK(sparse_kernels(isa).biased_argmax(z.data() + offset, bias.data() + offset, n) ==
              sparse_kernels(Isa::kScalar).biased_argmax(z.data() + offset, bias.data() + offset, n));
      }
    }
  }
}

TEST_CASE("biased_argmax: the bias counts") {
  const std::vector<float> z{3.0F, 1.0F, 2.0F};
  const std::vector<float> bias{-3.0F, 0.5F, 0.0F};
  for (const Isa isa : available_isas())
    CHECK(sparse_kernels(isa).biased_argmax(z.data(), bias.data(), 3) == 2);
}

TEST_CASE("biased_argmax: the first of equal logits wins, wherever both lie") {
  for (const Isa isa : available_isas()) {
    for (const std::size_t n : {2, 16, 37, 64}) {
      for (std::size_t first = 0; first < n; ++first) {
        for (std::size_t second = first + 1; second < n; ++second) {
          std::vector<float> z(n, -1.0F);
          z[first] = z[second] = 1.0F;
          CAPTURE(isa_name(isa));
          CHECK(pick(isa, z) == first);
        }
      }
    }
    CHECK(pick(isa, std::vector<float>(64, 0.0F)) == 0);
    CHECK(pick(isa, {-0.0F, 0.0F}) == 0);
  }
}

TEST_CASE("biased_argmax: a NaN never wins and never hides another logit") {
  for (const Isa isa : available_isas()) {
    for (const std::size_t n : {3, 16, 37, 64}) {
      for (std::size_t place = 0; place < n; ++place) {
        CAPTURE(isa_name(isa));
        CAPTURE(place);
        std::vector<float> z(n, -1.0F);
        z[place] = kNan;
        CHECK(pick(isa, z) == (place == 0 ? 1 : 0));
        std::fill(z.begin(), z.end(), kNan);
        z[place] = -7.0F;
        CHECK(pick(isa, z) == place);
      }
      CHECK(pick(isa, std::vector<float>(n, kNan)) == 0);
      CHECK(pick(isa, std::vector<float>(n, -kInf)) == 0);
      std::vector<float> z(n, 0.0F);
      z[n - 1] = kInf;
      CHECK(pick(isa, z) == n - 1);
    }
  }
}

}  // namespace
}  // namespace terrace::test
