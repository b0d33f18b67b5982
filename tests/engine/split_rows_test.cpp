// SPDX-License-Identifier: Apache-2.0
// Products of bf16 weights with split activation rows, where the CPU has tiles: the bits of their
// specification, near the exact value, whatever else is in the call.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "engine/dtype.h"
#include "engine/float_mode.h"
#include "engine/linear.h"
#include "tests/support/kernel_tables.h"
#include "tests/support/layer_runs.h"
#include "tests/support/random.h"
#include "tests/support/stored_weight.h"
#include "tests/support/tolerance.h"

namespace terrace::test {
namespace {

/// What DenseKernels says of dot_split_bf16: one weight row, one activation row.
float specified(const WeightView& w, std::size_t r, const float* x) {
  const auto* const row = reinterpret_cast<const std::uint16_t*>(w.row(r));
  std::array<float, 2> sums{};
  for (std::size_t c = 0; c < w.cols; c += kSplitColumns) {
    std::array<std::array<float, 2>, 2> chains{};  // [high, low][even, odd]
    for (std::size_t i = c; i < std::min(w.cols, c + kSplitColumns); ++i) {
      const float high = bf16_to_f32(f32_to_bf16(x[i]));
      const float rest = x[i] - high;
      const float low = std::isnan(rest) ? 0.0F : bf16_to_f32(f32_to_bf16(rest));
      const float weight = bf16_to_f32(row[i]);
      chains[0][i % 2] = std::fma(weight, high, chains[0][i % 2]);
      chains[1][i % 2] = std::fma(weight, low, chains[1][i % 2]);
    }
    for (std::size_t s = 0; s < 2; ++s) sums[s] += chains[s][0] + chains[s][1];
  }
  return sums[0] + sums[1];
}

std::vector<float> specified(const WeightView& w, std::size_t begin, std::size_t end, ConstRows x) {
  const FlushDenormals as_in_the_team;
  std::vector<float> y;
  for (std::size_t t = 0; t < x.n; ++t) {
    for (std::size_t r = begin; r < end; ++r) y.push_back(specified(w, r, x.row(t)));
  }
  return y;
}

/// Rows [begin, end) of w for packed rows; nothing else may be written.
std::vector<float> products(const DenseKernels& kernels, const WeightView& w, std::size_t begin,
                            std::size_t end, const PreparedRows& x) {
  constexpr float kUntouched = -77.0F;
  const std::size_t stride = w.rows + 3;
  std::vector<float> all(x.size() * stride, kUntouched), y;
  dot_rows(kernels, w, begin, end, x, all.data(), stride);
  bool touched = false;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::size_t r = i % stride;
    if (r >= begin && r < end) {
      y.push_back(all[i]);
    } else {
      touched |= all[i] != kUntouched;
    }
  }
  CHECK_FALSE(touched);
  return y;
}

template <class F>
void for_tables_with_tiles(F&& fn) {
  bool any = false;
  for (const DenseKernels* kernels : available_dense_kernels()) {
    if (!kernels->dot_split_bf16) continue;
    any = true;
    CAPTURE(std::string(kernels->name));
    fn(*kernels);
  }
  if (!any) MESSAGE("no tiles of bf16 on this CPU: split rows were not tested");
}

TEST_CASE("split rows: any number of rows, tokens and columns gives the bits of the specification") {
  TestExec exec(2);
  constexpr std::size_t kRows = 85;
  for_tables_with_tiles([&](const DenseKernels& kernels) {
    for (const std::size_t d : {1, 2, 15, 31, 32, 33, 64, 96, 144, 576, 1024, 1031}) {
      const StoredWeight w(DType::kBf16, kRows, d, d);
      for (const std::size_t n : {1, 2, 7, 8, 9, 16, 17, 24, 40}) {
        const std::vector<float> data = Random(n).floats(n * d, -3.0F, 3.0F);
        const ConstRows x(data.data(), n, d, d);
        for (const auto& [begin, end] : {std::pair{0U, 85U}, {0U, 16U}, {5U, 37U}, {84U, 85U}, {3U, 67U}}) {
          CAPTURE(d);
          CAPTURE(n);
          CAPTURE(begin);
          CAPTURE(end);
          const Workspace::Scope scope(exec.get().ws);
          PreparedRows rows = PreparedRows::unpacked(exec.get(), kernels, DType::kBf16, x);
          rows.pack(exec.get(), kernels, Packs::kSplit);
          CHECK(same_bits(products(kernels, w.view(), begin, end, rows), specified(w.view(), begin, end, x)));
        }
      }
    }
  });
}

TEST_CASE("split rows: whole packs of them, and packs of one's own, give the bits of the whole") {
  TestExec exec(1);
  constexpr std::size_t kTokens = 32, kColumns = 160, kRows = 48;
  const std::vector<float> data = Random(1).floats(kTokens * kColumns);
  const ConstRows x(data.data(), kTokens, kColumns, kColumns);
  const StoredWeight w(DType::kBf16, kRows, kColumns, 2);
  for_tables_with_tiles([&](const DenseKernels& kernels) {
    PreparedRows rows = PreparedRows::unpacked(exec.get(), kernels, DType::kBf16, x);
    const PreparedRows unpacked = rows;
    rows.pack(exec.get(), kernels, Packs::kSplit);
    const std::vector<float> whole = products(kernels, w.view(), 0, kRows, rows);
    const auto part = [&](std::size_t begin, std::size_t n) {
      const auto first = whole.begin() + static_cast<std::ptrdiff_t>(begin * kRows);
      return std::vector<float>(first, first + static_cast<std::ptrdiff_t>(n * kRows));
    };
    for (const auto& [begin, n] : {std::pair{0U, 8U}, {8U, 16U}, {24U, 8U}, {0U, 32U}}) {
      CHECK(same_bits(products(kernels, w.view(), 0, kRows, rows.slice(begin, n)), part(begin, n)));
    }
    for (const auto& [begin, n] : {std::pair{0U, 1U}, {5U, 3U}, {7U, 11U}, {31U, 1U}}) {
      const PreparedRows few = unpacked.slice(begin, n);
      auto* const packs = exec.get().ws.take<std::byte>(few.packs_bytes(Packs::kSplit));
      const PreparedRows own = few.packed_into(kernels, Packs::kSplit, packs);
      CHECK(same_bits(products(kernels, w.view(), 0, kRows, own), part(begin, n)));
    }
  });
}

TEST_CASE("split rows: within rounding of the exact value; infinity and NaN stay what they are") {
  TestExec exec(1);
  constexpr std::size_t kColumns = 700, kRows = 20;
  const StoredWeight w(DType::kBf16, kRows, kColumns, 3);
  for_tables_with_tiles([&](const DenseKernels& kernels) {
    std::vector<float> x = Random(4).floats(kColumns, -5.0F, 5.0F);
    const auto run = [&] {
      const Workspace::Scope scope(exec.get().ws);
      PreparedRows rows =
          PreparedRows::unpacked(exec.get(), kernels, DType::kBf16, {x.data(), 1, kColumns, kColumns});
      rows.pack(exec.get(), kernels, Packs::kSplit);
      return products(kernels, w.view(), 0, kRows, rows);
    };
    const std::vector<float> y = run();
    for (std::size_t r = 0; r < kRows; ++r) {
      double exact = 0, size = 0;
      for (std::size_t i = 0; i < kColumns; ++i) {
        exact += w.values()(r, i) * static_cast<double>(x[i]);
        size += std::fabs(w.values()(r, i) * static_cast<double>(x[i]));
      }
      // 2^-17 for the two parts, and the additions of a chain.
      CHECK(std::fabs(y[r] - exact) < (0x1p-17 + 60 * 0x1p-24) * size);
    }
    x[123] = std::numeric_limits<float>::infinity();
    for (const float v : run()) CHECK(std::isinf(v));
    x[123] = std::numeric_limits<float>::quiet_NaN();
    for (const float v : run()) CHECK(std::isnan(v));
  });
}

}  // namespace
}  // namespace terrace::test
