// SPDX-License-Identifier: Apache-2.0
// Many activation rows at once: packed or not, all or some of them, the bits are those of one row alone.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "engine/linear.h"
#include "engine/tile_scope.h"
#include "tests/support/kernel_tables.h"
#include "tests/support/layer_runs.h"
#include "tests/support/random.h"
#include "tests/support/stored_weight.h"
#include "tests/support/tolerance.h"

namespace terrace::test {
namespace {

/// Outputs [T, rows] of rows [begin, end) of w; columns outside stay untouched.
std::vector<float> dot_all(const DenseKernels& kernels, const WeightView& w, std::size_t begin,
                           std::size_t end, const PreparedRows& x) {
  constexpr float kUntouched = -77.0F;
  const std::size_t stride = w.rows + 3;
  std::vector<float> y(x.size() * stride, kUntouched);
  dot_rows(kernels, w, begin, end, x, y.data(), stride);
  std::vector<float> result;
  bool touched = false;
  for (std::size_t t = 0; t < x.size(); ++t) {
    const float* const row = y.data() + t * stride;
    result.insert(result.end(), row + begin, row + end);
    touched |= std::any_of(row, row + begin, [](float v) { return v != kUntouched; });
    touched |= std::any_of(row + end, row + stride, [](float v) { return v != kUntouched; });
  }
  CHECK_FALSE(touched);
  return result;
}

/// The specification, one row of weights and one of activations at a time.
std::vector<float> one_by_one(TestExec& exec, const WeightView& w, std::size_t begin, std::size_t end,
                              ConstRows x) {
  const DenseKernels& scalar = dense_kernels(Isa::kScalar);
  std::vector<float> y(x.n * (end - begin));
  for (std::size_t t = 0; t < x.n; ++t) {
    const Workspace::Scope scope(exec.get().ws);
    const PreparedRows row(exec.get(), scalar, w.dtype, x.slice(t, 1));
    for (std::size_t r = begin; r < end; ++r) {
      dot_rows(scalar, w.slice_rows(r, 1), 0, 1, row, &y[t * (end - begin) + r - begin], 1);
    }
  }
  return y;
}

TEST_CASE("dot_rows: any number of rows, tokens and columns gives the bits of the specification") {
  TestExec exec(2);
  constexpr std::size_t kRows = 53;
  for (const DType dtype : kAllDtypes) {
    for (const std::size_t d :
         {1, 15, 16, 40, 64, 68, 100, 128, 192, 432, 576, 802, 1024, 1088, 1296, 2100, 2112}) {
      if (dtype == DType::kQ4 && d % kQ4Columns != 0) continue;
      const StoredWeight w(dtype, kRows, d, d);
      for (const std::size_t n : {1, 7, 8, 15, 16, 17, 23, 24, 40, 75, 139, 300}) {
        if (n == 300 && d != 1024 && d != 2100) continue;  // more than 256 rows, and 256 KB of them
        const std::vector<float> data = Random(n).floats(n * d, -3.0F, 3.0F);
        const ConstRows x(data.data(), n, d, d);
        for (const auto& [begin, end] : {std::pair{0, 53}, {0, 16}, {5, 37}, {48, 53}}) {
          const std::vector<float> expected =
              one_by_one(exec, w.view(), static_cast<std::size_t>(begin), static_cast<std::size_t>(end), x);
          for (const DenseKernels* kernels : available_dense_kernels()) {
            CAPTURE(std::string(kernels->name));
            CAPTURE(std::string(dtype_name(dtype)));
            CAPTURE(d);
            CAPTURE(n);
            CAPTURE(begin);
            const Workspace::Scope scope(exec.get().ws);
            const PreparedRows rows(exec.get(), *kernels, dtype, x);
            CHECK(same_bits(dot_all(*kernels, w.view(), static_cast<std::size_t>(begin),
                                    static_cast<std::size_t>(end), rows),
                            expected));
          }
        }
      }
    }
  }
}

TEST_CASE("PreparedRows::slice: a part gives the bits of the whole") {
  TestExec exec(1);
  constexpr std::size_t kTokens = 44;
  constexpr std::size_t kColumns = 192;
  constexpr std::size_t kRows = 32;
  const std::vector<float> data = Random(1).floats(kTokens * kColumns);
  for (const DType dtype : kAllDtypes) {
    const StoredWeight w(dtype, kRows, kColumns, 2);
    for (const DenseKernels* kernels : available_dense_kernels()) {
      const Workspace::Scope scope(exec.get().ws);
      const ConstRows x(data.data(), kTokens, kColumns, kColumns);
      const PreparedRows rows(exec.get(), *kernels, dtype, x);
      const std::vector<float> whole = dot_all(*kernels, w.view(), 0, kRows, rows);
      const PreparedRows unpacked = PreparedRows::unpacked(exec.get(), *kernels, dtype, x);
      CHECK(unpacked.n_packed() == 0);
      CHECK(same_bits(dot_all(*kernels, w.view(), 0, kRows, unpacked), whole));
      auto* const packs = exec.get().ws.take<std::byte>(unpacked.packs_bytes(packs_for(*kernels, dtype)));
      const PreparedRows own = unpacked.packed_into(*kernels, packs_for(*kernels, dtype), packs);
      CHECK(own.n_packed() == rows.n_packed());
      CHECK(same_bits(dot_all(*kernels, w.view(), 0, kRows, own), whole));
      for (const auto& [begin, n] :
           {std::pair{0U, 16U}, {16U, 16U}, {16U, 28U}, {32U, 12U}, {3U, 20U}, {40U, 4U}}) {
        CAPTURE(std::string(kernels->name));
        CAPTURE(std::string(dtype_name(dtype)));
        CAPTURE(begin);
        const std::vector<float> part(whole.begin() + begin * kRows, whole.begin() + (begin + n) * kRows);
        CHECK(same_bits(dot_all(*kernels, w.view(), 0, kRows, rows.slice(begin, n)), part));
      }
    }
  }
}

TEST_CASE("PreparedRows::put_product: rows made one by one are the rows of the product") {
  TestExec exec(1);
  constexpr std::size_t kColumns = 320;
  for (const std::size_t n : {3, 16, 27}) {
    const std::vector<float> a = Random(3).floats(n * kColumns);
    for (const DType dtype : kAllDtypes) {
      const StoredWeight w(dtype, 16, kColumns, 5), b(dtype, n, kColumns, 4);
      for (const DenseKernels* kernels : available_dense_kernels()) {
        CAPTURE(std::string(kernels->name));
        CAPTURE(std::string(dtype_name(dtype)));
        const Workspace::Scope scope(exec.get().ws);
        PreparedRows made = PreparedRows::reserve(exec.get(), dtype, n, kColumns);
        std::vector<float> product(n * kColumns);
        for (std::size_t i = 0; i < n; ++i) {
          made.put_product(*kernels, i, &a[i * kColumns], Int16Row{}, b.view(), i);
          widen_row(*kernels, b.view(), i, &product[i * kColumns]);
          kernels->multiply(&product[i * kColumns], &a[i * kColumns], kColumns);
        }
        made.pack(exec.get(), *kernels, packs_for(*kernels, dtype));
        const PreparedRows given(exec.get(), *kernels, dtype, {product.data(), n, kColumns, kColumns});
        CHECK(same_bits(dot_all(*kernels, w.view(), 0, 16, made), dot_all(*kernels, w.view(), 0, 16, given)));
      }
    }
  }
}

TEST_CASE("PreparedRows::put_product: from 16 bits of x where they are enough, else the bits of floats") {
  TestExec exec(1);
  constexpr std::size_t kColumns = 320, kRows = 16;
  const StoredWeight w(DType::kQ8, kRows, kColumns, 5), factors(DType::kQ8, kRows, kColumns, 4);
  std::vector<float> x = Random(3).floats(kColumns);
  for (const bool enough : {true, false}) {
    if (!enough) x[17] = 1e6F;  // factors of that column are small in some rows only
    for (const DenseKernels* kernels : available_dense_kernels()) {
      CAPTURE(std::string(kernels->name));
      CAPTURE(enough);
      const Workspace::Scope scope(exec.get().ws);
      std::vector<std::int16_t> words(kColumns);
      const Int16Row in_words = int16_row(*kernels, x.data(), kColumns, words.data());
      const PreparedRows made = PreparedRows::reserve(exec.get(), DType::kQ8, kRows, kColumns);
      const PreparedRows of_floats = PreparedRows::reserve(exec.get(), DType::kQ8, kRows, kColumns);
      for (std::size_t i = 0; i < kRows; ++i) {
        made.put_product(*kernels, i, x.data(), in_words, factors.view(), i);
        of_floats.put_product(*kernels, i, x.data(), Int16Row{}, factors.view(), i);
        const QuantizedRow &a = made.q8()[i], &b = of_floats.q8()[i];
        CHECK(std::abs(a.scale - b.scale) <= 0.01F * b.scale);  // the factor is a whole number from 127 on
        for (std::size_t c = 0; c < kColumns; ++c) {
          const float difference =
              static_cast<float>(a.q[c]) * a.scale - static_cast<float>(b.q[c]) * b.scale;
          CHECK(std::abs(difference) <= 1.13F * a.scale);  // two roundings and an eighth of a step
        }
      }
    }
  }
}

TEST_CASE("TileScope: products of all kinds in turn have the bits that they have alone") {
  TestExec exec(1);
  constexpr std::size_t kColumns = 256, kRows = 48, kTokens = 32;
  const std::vector<float> x = Random(3).floats(kTokens * kColumns);
  const ConstRows rows{x.data(), kTokens, kColumns, kColumns};
  for (const DenseKernels* kernels : available_dense_kernels()) {
    CAPTURE(std::string(kernels->name));
    const auto product = [&](DType dtype) {
      const Workspace::Scope scope(exec.get().ws);
      const StoredWeight w(dtype, kRows, kColumns, 5);
      PreparedRows prepared = PreparedRows::unpacked(exec.get(), *kernels, dtype, rows);
      prepared.pack(exec.get(), *kernels, tile_packs_for(*kernels, dtype));
      return dot_all(*kernels, w.view(), 0, kRows, prepared);
    };
    std::vector<std::vector<float>> alone;
    for (const DType dtype : kAllDtypes) alone.push_back(product(dtype));
    const TileScope outer;
    for (int i = 0; i < 3; ++i) {
      std::size_t k = 0;
      for (const DType dtype : kAllDtypes) {
        const TileScope inner;
        CHECK(same_bits(product(dtype), alone[k]));
        if (i == 1) TileScope::release();
        CHECK(same_bits(product(dtype), alone[k++]));
      }
    }
  }
  CHECK(tile_state.configuration == 0);
}

}  // namespace
}  // namespace terrace::test
