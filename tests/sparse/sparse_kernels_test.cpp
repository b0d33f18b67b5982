// SPDX-License-Identifier: Apache-2.0
#include "sparse/kernels/sparse_kernels.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
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

/// A controller's int8 rows with scales, biases and one input.
struct Int8Rows {
  Int8Rows(std::size_t rows, std::size_t d, std::size_t row_stride, std::uint32_t seed)
      : w(rows * row_stride), scale(rows), bias(random_floats(rows, seed + 1)), x((d + 63) / 64 * 64) {
    std::mt19937 random(seed);
    for (std::int8_t& v : w) v = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
    for (float& v : scale) v = 1e-4F * static_cast<float>(1 + random() % 8);
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < d; ++i) {
      x[i] = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
      sum += x[i];
    }
    row = {x.data(), 0.01F, sum};
  }

  std::vector<std::int8_t> w;
  std::vector<float> scale;
  std::vector<float> bias;
  std::vector<std::int8_t> x;
  QuantizedRow row{};
};

/// The picks of dot_q8 and biased_argmax, both scalar.
std::vector<std::uint32_t> expected_picks(const Int8Rows& rows, std::size_t d, std::size_t row_stride,
                                          std::size_t block_size) {
  std::vector<float> z(rows.scale.size());
  dense_kernels(Isa::kScalar)
      .dot_q8(rows.w.data(), row_stride, rows.scale.data(), z.size(), &rows.row, 1, d, z.data(), z.size());
  std::vector<std::uint32_t> picks;
  for (std::size_t b = 0; b < z.size() / block_size; ++b) {
    picks.push_back(
        sparse_kernels(Isa::kScalar)
            .biased_argmax(z.data() + b * block_size, rows.bias.data() + b * block_size, block_size));
  }
  return picks;
}

TEST_CASE("pick_q8: decides as dot_q8 and biased_argmax do, for every block size and row length") {
  for (const Isa isa : available_isas()) {
    const SparseKernels& kernels = sparse_kernels(isa);
    if (!kernels.pick_q8) continue;
    CAPTURE(kernels.name);
    for (const std::size_t block_size : {1U, 2U, 7U, 15U, 16U, 17U, 32U, 33U, 64U, 256U}) {
      for (const std::size_t d : {1U, 5U, 31U, 32U, 63U, 64U, 65U, 96U, 127U, 128U, 200U}) {
        CAPTURE(block_size);
        CAPTURE(d);
        constexpr std::size_t kBlocks = 5;
        const std::size_t row_stride = d + d % 3;
        const Int8Rows rows(kBlocks * block_size, d, row_stride, static_cast<std::uint32_t>(block_size + d));
        std::vector<std::uint32_t> picks(kBlocks);
        kernels.pick_q8(rows.w.data(), row_stride, rows.scale.data(), rows.bias.data(), rows.row, d,
                        block_size, kBlocks, picks.data());
        CHECK(picks == expected_picks(rows, d, row_stride, block_size));
      }
    }
  }
}

TEST_CASE("pick_q8: the first of equal units wins, NaN never does, and a block of NaN picks unit 0") {
  for (const Isa isa : available_isas()) {
    const SparseKernels& kernels = sparse_kernels(isa);
    if (!kernels.pick_q8) continue;
    constexpr std::size_t kSize = 48;
    Int8Rows rows(3 * kSize, 32, 32, 3);
    std::fill(rows.w.begin(), rows.w.end(), std::int8_t{1});
    std::fill(rows.scale.begin(), rows.scale.end(), 0.5F);
    std::fill(rows.bias.begin(), rows.bias.end(), 0.0F);
    rows.bias[21] = rows.bias[37] = 1.0F;  // equal tops of the first block, in different lanes
    rows.bias[0] = kNan;
    rows.bias[kSize + 40] = kInf;
    std::fill(rows.bias.begin() + 2 * kSize, rows.bias.end(), kNan);
    std::vector<std::uint32_t> picks(3);
    kernels.pick_q8(rows.w.data(), 32, rows.scale.data(), rows.bias.data(), rows.row, 32, kSize, 3,
                    picks.data());
    CHECK(picks == std::vector<std::uint32_t>{21, 40, 0});
  }
}

}  // namespace
}  // namespace terrace::test
