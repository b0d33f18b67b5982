// SPDX-License-Identifier: Apache-2.0
#include "engine/linear.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/allocation_counter.h"
#include "tests/support/kernel_tables.h"
#include "tests/support/layer_runs.h"
#include "tests/support/naive_layers.h"
#include "tests/support/random.h"
#include "tests/support/stored_weight.h"
#include "tests/support/tolerance.h"

namespace terrace::test {
namespace {

const DenseKernels& best_kernels() { return dense_kernels(isa_from_environment()); }

std::vector<float> forward(Exec& exec, const Linear& linear, const std::vector<float>& x, std::size_t n) {
  std::vector<float> y(n * linear.d_out());
  linear.forward(exec, ConstRows(x.data(), n, linear.d_in(), linear.d_in()),
                 Rows{y.data(), n, linear.d_out(), linear.d_out()});
  return y;
}

TEST_CASE("Linear: W x + b for every dtype, as in double") {
  TestExec exec(2);
  for (const DType dtype : kAllDtypes) {
    for (const std::size_t d_in : {64, 320, 1024}) {
      constexpr std::size_t kOut = 37;
      constexpr std::size_t kRows = 5;
      const StoredWeight w(dtype, kOut, d_in, 1);
      const std::vector<float> bias = Random(2).floats(kOut);
      const std::vector<float> x = Random(3).floats(kRows * d_in);
      for (const bool with_bias : {false, true}) {
        const Matrix expected =
            naive_linear(Matrix(kRows, d_in, x), w.values(), with_bias ? bias : std::vector<float>{});
        for (const DenseKernels* kernels : available_dense_kernels()) {
          CAPTURE(std::string(kernels->name));
          CAPTURE(std::string(dtype_name(dtype)));
          CAPTURE(d_in);
          const Linear linear(*kernels, w.view(), with_bias ? bias.data() : nullptr);
          CHECK(relative_difference(forward(exec.get(), linear, x, kRows), expected) <= tolerance(dtype));
        }
      }
    }
  }
}

TEST_CASE("Linear: the same bits for any number of threads, and for rows together or one by one") {
  constexpr std::size_t kIn = 512;
  constexpr std::size_t kOut = 300;
  constexpr std::size_t kRows = 7;
  const std::vector<float> x = Random(4).floats(kRows * kIn);
  const std::vector<float> bias = Random(5).floats(kOut);
  for (const DType dtype : kAllDtypes) {
    CAPTURE(std::string(dtype_name(dtype)));
    const StoredWeight w(dtype, kOut, kIn, 6);
    const Linear linear(best_kernels(), w.view(), bias.data());
    TestExec one(1);
    const std::vector<float> expected = forward(one.get(), linear, x, kRows);
    for (const unsigned n_threads : {2U, 3U, 8U}) {
      TestExec many(n_threads);
      CHECK(same_bits(forward(many.get(), linear, x, kRows), expected));
    }
    for (std::size_t t = 0; t < kRows; ++t) {
      const std::vector<float> row(x.begin() + static_cast<std::ptrdiff_t>(t * kIn),
                                   x.begin() + static_cast<std::ptrdiff_t>((t + 1) * kIn));
      const std::vector<float> y(expected.begin() + static_cast<std::ptrdiff_t>(t * kOut),
                                 expected.begin() + static_cast<std::ptrdiff_t>((t + 1) * kOut));
      CHECK(same_bits(forward(one.get(), linear, row, 1), y));
    }
  }
}

TEST_CASE("Linear::forward_beside: the bits of forward(), and the leader's task is run once, by the leader") {
  constexpr std::size_t kIn = 512;
  const std::vector<float> x = Random(15).floats(kIn);
  for (const DType dtype : kAllDtypes) {
    CAPTURE(std::string(dtype_name(dtype)));
    for (const std::size_t d_out : {16, 100, 1000}) {  // the first is too small to be worth a phase
      CAPTURE(d_out);
      const std::vector<float> bias = Random(16).floats(d_out);
      const StoredWeight w(dtype, d_out, kIn, 17);
      const Linear linear(best_kernels(), w.view(), bias.data());
      TestExec one(1);
      const std::vector<float> expected = forward(one.get(), linear, x, 1);
      for (const unsigned n_threads : {1U, 2U, 3U, 8U}) {
        CAPTURE(n_threads);
        TestExec exec(n_threads);
        const ThreadTeam::Region region(exec.get().team);
        const PreparedRows rows(exec.get(), best_kernels(), dtype, {x.data(), 1, kIn, kIn});
        std::vector<float> y(d_out);
        std::thread::id who;
        int runs = 0;
        const auto task = [&] {
          who = std::this_thread::get_id();
          exec.get().ws.take<float>(8);
          ++runs;
        };
        linear.forward_beside(exec.get(), task, rows, {y.data(), 1, d_out, d_out});
        CHECK(runs == 1);
        CHECK(who == std::this_thread::get_id());
        CHECK(same_bits(y, expected));
      }
    }
  }
}

TEST_CASE("Linear: a prefix of the columns is the map with shorter rows") {
  constexpr std::size_t kIn = 256;
  constexpr std::size_t kUsed = 128;
  constexpr std::size_t kOut = 20;
  TestExec exec(2);
  const std::vector<float> x = Random(7).floats(kUsed);
  for (const DType dtype : kAllDtypes) {
    CAPTURE(std::string(dtype_name(dtype)));
    const StoredWeight w(dtype, kOut, kIn, 8);
    Matrix prefix(kOut, kUsed);
    for (std::size_t r = 0; r < kOut; ++r) {
      for (std::size_t c = 0; c < kUsed; ++c) prefix(r, c) = w.values()(r, c);
    }
    const Linear linear(best_kernels(), w.view().prefix_columns(kUsed), nullptr);
    const Matrix expected = naive_linear(Matrix(1, kUsed, x), prefix, {});
    CHECK(relative_difference(forward(exec.get(), linear, x, 1), expected) <= tolerance(dtype));
  }
}

TEST_CASE("Linear::forward allocates nothing") {
  constexpr std::size_t kIn = 256;
  constexpr std::size_t kOut = 512;
  TestExec exec(2);
  const std::vector<float> x = Random(9).floats(3 * kIn);
  std::vector<float> y(3 * kOut);
  for (const DType dtype : kAllDtypes) {
    const StoredWeight w(dtype, kOut, kIn, 10);
    const Linear linear(best_kernels(), w.view(), nullptr);
    const AllocationCounter counter;
    linear.forward(exec.get(), ConstRows(x.data(), 3, kIn, kIn), Rows{y.data(), 3, kOut, kOut});
    CHECK(counter.allocations() == 0);
  }
}

TEST_CASE("axpy_rows: picked rows, any split of the columns, every dtype") {
  constexpr std::size_t kCols = 192;
  constexpr std::size_t kStored = 9;
  const std::vector<std::uint32_t> picks = {7, 0, 7, 3, 8};
  const std::vector<float> a = Random(12).floats(picks.size());
  const std::vector<float> start = Random(13).floats(kCols);
  for (const DType dtype : kAllDtypes) {
    CAPTURE(std::string(dtype_name(dtype)));
    const StoredWeight w(dtype, kStored, kCols, 14);
    std::vector<float> scratch_a(picks.size());
    std::vector<const void*> scratch_rows(2 * picks.size());
    const auto run = [&](std::size_t cut) {
      std::vector<float> y = start;
      for (const auto& [begin, end] : {std::pair{std::size_t{0}, cut}, std::pair{cut, kCols}}) {
        axpy_rows(best_kernels(), w.view(), a.data(), picks.data(), picks.size(), begin, end, y.data(),
                  scratch_a.data(), scratch_rows.data());
      }
      return y;
    };
    const std::vector<float> whole = run(kCols);
    for (std::size_t c = 0; c < kCols; ++c) {
      double exact = start[c];
      for (std::size_t k = 0; k < picks.size(); ++k) exact += double{a[k]} * w.values()(picks[k], c);
      CHECK(std::abs(whole[c] - exact) <= 1e-6);
    }
    for (const std::size_t cut : {0, 64, 128}) CHECK(same_bits(run(cut), whole));
  }
}

TEST_CASE("widen_row: the stored values of one row, every dtype") {
  constexpr std::size_t kCols = 128;
  for (const DType dtype : kAllDtypes) {
    CAPTURE(std::string(dtype_name(dtype)));
    const StoredWeight w(dtype, 4, kCols, 15);
    for (std::size_t r = 0; r < 4; ++r) {
      std::vector<float> y(kCols, -77.0F);
      widen_row(best_kernels(), w.view(), r, y.data());
      for (std::size_t c = 0; c < kCols; ++c) CHECK(y[c] == doctest::Approx(w.values()(r, c)).epsilon(1e-7));
    }
  }
}

}  // namespace
}  // namespace terrace::test
