// SPDX-License-Identifier: Apache-2.0
// Dot products and accumulations of every instruction set against the scalar specification.
#include "engine/kernels/dense_kernels.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/dtype.h"
#include "engine/tensor.h"
#include "tests/support/kernel_tables.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace terrace::test {
namespace {

const DenseKernels& scalar() { return dense_kernels(Isa::kScalar); }

/// All short lengths, so that every tail of every register width occurs, and widths of models.
std::vector<std::size_t> lengths(std::size_t multiple = 1) {
  std::vector<std::size_t> result;
  for (std::size_t d = multiple; d <= 131 || d <= 4 * multiple; d += multiple) result.push_back(d);
  for (const std::size_t d : {256, 512, 1024, 3072}) result.push_back(d);
  if (multiple == 1) result.insert(result.end(), {1023, 1030});
  if (multiple == kQ4Columns) result.insert(result.end(), {kQ4Span + 64, kQ4Span + 128, 2 * kQ4Span + 192});
  return result;
}

/// A problem of each dtype: weights with a guard value behind the last row's end, activations, a way to run
/// it.
struct Problem {
  Problem(DType weight_type, std::size_t rows, std::size_t tokens, std::size_t columns, std::size_t stride,
          std::size_t shift, std::uint64_t seed)
      : dtype(weight_type), n_rows(rows), n_tokens(tokens), d(columns), row_stride(stride), offset(shift) {
    Random random(seed);
    const std::size_t n = (n_rows - 1) * row_stride + d + offset;  // not one element more than may be read
    switch (dtype) {
      case DType::kF32:
        f32 = random.floats(n);
        break;
      case DType::kBf16:
        bf16 = random.bf16(n);
        break;
      case DType::kQ8:
        q8 = random.int8(n);
        q8_scale = random.floats(n_rows, 0.001F, 0.1F);
        break;
      case DType::kQ4:
        q4 = random.bytes((n_rows - 1) * row_stride / 2 + d / 2 + offset);
        q4_scale = random.bf16(n_rows * row_stride / kQ4Group, 0.001F, 0.1F);
        break;
    }
    for (std::size_t t = 0; t < n_tokens; ++t) {
      x.push_back(random.floats(d + offset, -3.0F, 3.0F));
      q.push_back(random.int8(d + offset));
      sums.push_back(0);
      for (std::size_t i = 0; i < d; ++i) sums.back() += q.back()[offset + i];
      scales.push_back(random.uniform(0.001F, 0.1F));
    }
  }

  /// Outputs of rows [r0, r0 + rows) and tokens [t0, t0 + tokens) from one call.
  std::vector<float> run(const DenseKernels& kernels, std::size_t r0, std::size_t rows, std::size_t t0,
                         std::size_t tokens) const {
    const std::size_t y_stride = rows + 3;
    constexpr float kUntouched = -77.0F;
    std::vector<float> y(tokens * y_stride, kUntouched);
    std::vector<const float*> xs;
    std::vector<QuantizedRow> qs;
    for (std::size_t t = t0; t < t0 + tokens; ++t) {
      xs.push_back(x[t].data() + offset);
      qs.push_back({q[t].data() + offset, scales[t], sums[t]});
    }
    switch (dtype) {
      case DType::kF32:
        kernels.dot_f32(f32.data() + offset + r0 * row_stride, row_stride, rows, xs.data(), tokens, d,
                        y.data(), y_stride);
        break;
      case DType::kBf16:
        kernels.dot_bf16(bf16.data() + offset + r0 * row_stride, row_stride, rows, xs.data(), tokens, d,
                         y.data(), y_stride);
        break;
      case DType::kQ8:
        kernels.dot_q8(q8.data() + offset + r0 * row_stride, row_stride, q8_scale.data() + r0, rows,
                       qs.data(), tokens, d, y.data(), y_stride);
        break;
      case DType::kQ4:
        kernels.dot_q4(q4.data() + offset + r0 * row_stride / 2, row_stride,
                       q4_scale.data() + r0 * row_stride / kQ4Group, rows, qs.data(), tokens, d, y.data(),
                       y_stride);
        break;
    }
    std::vector<float> result;
    result.reserve(tokens * rows);
    for (std::size_t t = 0; t < tokens; ++t) {
      result.insert(result.end(), y.begin() + static_cast<std::ptrdiff_t>(t * y_stride),
                    y.begin() + static_cast<std::ptrdiff_t>(t * y_stride + rows));
      for (std::size_t r = rows; r < y_stride; ++r) CHECK(y[t * y_stride + r] == kUntouched);
    }
    return result;
  }
  std::vector<float> run(const DenseKernels& kernels) const { return run(kernels, 0, n_rows, 0, n_tokens); }

  /// Outputs of rows row(0) .. row(n - 1) and the first token from one call.
  template <class Row>
  std::vector<float> run_gathered(const DenseKernels& kernels, std::size_t n, Row row) const {
    std::vector<float> y(n), w_scale(n);
    const auto pointers = [&]<class T>(const std::vector<T>& w) {
      std::vector<const T*> rows;
      for (std::size_t k = 0; k < n; ++k) rows.push_back(w.data() + offset + row(k) * row_stride);
      return rows;
    };
    if (dtype == DType::kF32)
      kernels.dot_gathered_f32(pointers(f32).data(), n, x[0].data() + offset, d, y.data());
    if (dtype == DType::kBf16)
      kernels.dot_gathered_bf16(pointers(bf16).data(), n, x[0].data() + offset, d, y.data());
    if (dtype == DType::kQ8) {
      for (std::size_t k = 0; k < n; ++k) w_scale[k] = q8_scale[row(k)];
      kernels.dot_gathered_q8(pointers(q8).data(), w_scale.data(), n,
                              {q[0].data() + offset, scales[0], sums[0]}, d, y.data());
    }
    if (dtype == DType::kQ4) {
      std::vector<const std::uint8_t*> rows;
      std::vector<const std::uint16_t*> row_scales;
      for (std::size_t k = 0; k < n; ++k) {
        rows.push_back(q4.data() + offset + row(k) * row_stride / 2);
        row_scales.push_back(q4_scale.data() + row(k) * row_stride / kQ4Group);
      }
      kernels.dot_gathered_q4(rows.data(), row_scales.data(), n, {q[0].data() + offset, scales[0], sums[0]},
                              d, y.data());
    }
    return y;
  }

  DType dtype;
  std::size_t n_rows, n_tokens, d, row_stride, offset;
  std::vector<float> f32, q8_scale, scales;
  std::vector<std::uint16_t> bf16, q4_scale;
  std::vector<std::int8_t> q8;
  std::vector<std::uint8_t> q4;
  std::vector<std::vector<float>> x;
  std::vector<std::vector<std::int8_t>> q;
  std::vector<std::int32_t> sums;
};

constexpr DType kDtypes[] = {DType::kF32, DType::kBf16, DType::kQ8, DType::kQ4};

TEST_CASE("dot: every instruction set gives the bits of the specification for all lengths and alignments") {
  for (const DType dtype : kDtypes) {
    for (const std::size_t d : lengths(dtype == DType::kQ4 ? kQ4Columns : 1)) {
      for (const std::size_t offset : {0, 1, 3, 7}) {
        const std::size_t stride = dtype == DType::kQ4 ? d + kQ4Columns : d + offset;
        const Problem problem(dtype, 3, 2, d, stride, offset, d + offset);
        const std::vector<float> expected = problem.run(scalar());
        for (const DenseKernels* kernels : available_dense_kernels()) {
          CAPTURE(std::string(kernels->name));
          CAPTURE(std::string(dtype_name(dtype)));
          CAPTURE(d);
          CAPTURE(offset);
          CHECK(same_bits(problem.run(*kernels), expected));
        }
      }
    }
  }
}

TEST_CASE("dot: any number of rows and tokens in a call gives the bits of calls for one row and one token") {
  constexpr std::size_t kMost = 9;
  for (const DType dtype : kDtypes) {
    for (const std::size_t d : {64, 192}) {
      const Problem problem(dtype, kMost, kMost, d, d, 0, d);
      for (const DenseKernels* kernels : available_dense_kernels()) {
        CAPTURE(std::string(kernels->name));
        CAPTURE(std::string(dtype_name(dtype)));
        float single[kMost][kMost];
        for (std::size_t r = 0; r < kMost; ++r) {
          for (std::size_t t = 0; t < kMost; ++t) single[t][r] = problem.run(*kernels, r, 1, t, 1)[0];
        }
        for (std::size_t rows = 1; rows <= kMost; ++rows) {
          for (std::size_t tokens = 1; tokens <= kMost; ++tokens) {
            CAPTURE(rows);
            CAPTURE(tokens);
            const std::vector<float> y = problem.run(*kernels, 0, rows, 0, tokens);
            std::vector<float> expected;
            for (std::size_t t = 0; t < tokens; ++t)
              expected.insert(expected.end(), single[t], single[t] + rows);
            CHECK(same_bits(y, expected));
          }
        }
      }
    }
  }
}

TEST_CASE("dot: matrices larger than a cache panel, with many tokens, give the bits of the specification") {
  for (const DType dtype : kDtypes) {
    const Problem problem(dtype, 301, 7, 512, 512, 0, 1);
    const std::vector<float> expected = problem.run(scalar());
    for (const DenseKernels* kernels : available_dense_kernels()) {
      CAPTURE(std::string(kernels->name));
      CAPTURE(std::string(dtype_name(dtype)));
      CHECK(same_bits(problem.run(*kernels), expected));
    }
  }
}

TEST_CASE("dot_f32 and dot_bf16: within the summation bound of the exact value") {
  for (const std::size_t d : lengths()) {
    const Problem f32(DType::kF32, 1, 1, d, d, 0, d);
    const Problem bf16(DType::kBf16, 1, 1, d, d, 0, d);
    std::vector<float> widened(d);
    for (std::size_t i = 0; i < d; ++i) widened[i] = bf16_to_f32(bf16.bf16[i]);
    const auto exact = [&](const float* w, const float* x) {
      double sum = 0;
      for (std::size_t i = 0; i < d; ++i) sum += static_cast<double>(w[i]) * x[i];
      return sum;
    };
    for (const DenseKernels* kernels : available_dense_kernels()) {
      CAPTURE(std::string(kernels->name));
      CAPTURE(d);
      CHECK(std::abs(f32.run(*kernels)[0] - exact(f32.f32.data(), f32.x[0].data())) <=
            dot_bound(f32.f32.data(), f32.x[0].data(), d));
      CHECK(std::abs(bf16.run(*kernels)[0] - exact(widened.data(), bf16.x[0].data())) <=
            dot_bound(widened.data(), bf16.x[0].data(), d));
    }
  }
}

TEST_CASE("dot_q8: many short rows, with and without gaps, give the bits of the specification") {
  for (const std::size_t d : {1, 16, 31, 32, 33, 64, 65}) {
    for (const std::size_t gap : {0, 5}) {
      for (const std::size_t rows : {15, 16, 17, 50, 64}) {
        for (const std::size_t offset : {0, 3}) {
          CAPTURE(d);
          CAPTURE(gap);
          CAPTURE(rows);
          const Problem problem(DType::kQ8, rows, 3, d, d + gap, offset, d + rows);
          const std::vector<float> expected = problem.run(scalar());
          for (const DenseKernels* kernels : available_dense_kernels()) {
            CAPTURE(std::string(kernels->name));
            CHECK(same_bits(problem.run(*kernels), expected));
          }
        }
      }
    }
  }
}

TEST_CASE("dot_q8: extreme values do not saturate") {
  constexpr std::size_t kD = 4096;
  const float scale = 1.0F;
  for (const int w_value : {-127, 127}) {
    for (const int x_value : {-127, 127}) {
      const std::vector<std::int8_t> w(kD, static_cast<std::int8_t>(w_value));
      const std::vector<std::int8_t> x(kD, static_cast<std::int8_t>(x_value));
      const QuantizedRow row{x.data(), 1.0F, static_cast<std::int32_t>(kD) * x_value};
      for (const DenseKernels* kernels : available_dense_kernels()) {
        CAPTURE(std::string(kernels->name));
        float y = 0;
        kernels->dot_q8(w.data(), kD, &scale, 1, &row, 1, kD, &y, 1);
        CHECK(y == static_cast<float>(static_cast<std::int32_t>(kD) * w_value * x_value));
      }
    }
  }
}

TEST_CASE("dot_q4: means what the model file says") {
  constexpr std::size_t kD = 128;
  const Problem problem(DType::kQ4, 2, 1, kD, kD, 0, 5);
  for (std::size_t r = 0; r < 2; ++r) {
    double exact = 0;
    double size = 0;
    for (std::size_t c = 0; c < kD; ++c) {
      const std::uint8_t byte = problem.q4[r * kD / 2 + c / 64 * 32 + c % 32];
      const int nibble = c % 64 < 32 ? byte & 15 : byte >> 4;
      const double scale = bf16_to_f32(problem.q4_scale[r * kD / 32 + c / 32]);
      exact += scale * (nibble - 8) * problem.q[0][c] * problem.scales[0];
      size += std::abs(scale * (nibble - 8) * problem.q[0][c] * problem.scales[0]);
    }
    CHECK(std::abs(problem.run(scalar())[r] - exact) <= 1e-6 * size);
  }
}

/// y += sum_k a[k] row_k with weights of any dtype, over columns [begin, end).
std::vector<float> run_axpy(const DenseKernels& kernels, const Problem& problem, const std::vector<float>& a,
                            std::vector<float> y, std::size_t begin, std::size_t end) {
  const std::size_t n = a.size();
  const std::size_t o = problem.offset + begin;
  std::vector<const float*> f32(n);
  std::vector<const std::uint16_t*> bf16(n), scales(n);
  std::vector<const std::int8_t*> q8(n);
  std::vector<const std::uint8_t*> q4(n);
  for (std::size_t k = 0; k < n; ++k) {
    const std::size_t first = k * problem.row_stride;
    if (problem.dtype == DType::kF32) f32[k] = problem.f32.data() + first + o;
    if (problem.dtype == DType::kBf16) bf16[k] = problem.bf16.data() + first + o;
    if (problem.dtype == DType::kQ8) q8[k] = problem.q8.data() + first + o;
    if (problem.dtype == DType::kQ4) {
      q4[k] = problem.q4.data() + problem.offset + (first + begin) / 2;
      scales[k] = problem.q4_scale.data() + (first + begin) / kQ4Group;
    }
  }
  switch (problem.dtype) {
    case DType::kF32:
      kernels.axpy_f32(a.data(), f32.data(), n, y.data() + begin, end - begin);
      break;
    case DType::kBf16:
      kernels.axpy_bf16(a.data(), bf16.data(), n, y.data() + begin, end - begin);
      break;
    case DType::kQ8:
      kernels.axpy_q8(a.data(), q8.data(), n, y.data() + begin, end - begin);
      break;
    case DType::kQ4:
      kernels.axpy_q4(a.data(), q4.data(), scales.data(), n, y.data() + begin, end - begin);
      break;
  }
  return y;
}

TEST_CASE("dot_gathered: rows anywhere give the bits of dot") {
  constexpr std::size_t kRows = 11;
  for (const DType dtype : kDtypes) {
    for (const std::size_t d : lengths(dtype == DType::kQ4 ? kQ4Columns : 1)) {
      const Problem problem(dtype, kRows, 1, d, d, 1, d);
      const auto row = [&](std::size_t k) { return k * 7 % kRows; };
      std::vector<float> expected;
      for (std::size_t k = 0; k < kRows; ++k) expected.push_back(problem.run(scalar(), row(k), 1, 0, 1)[0]);
      for (std::size_t n = 1; n <= kRows; ++n) {
        for (const DenseKernels* kernels : available_dense_kernels()) {
          CAPTURE(std::string(kernels->name));
          CAPTURE(std::string(dtype_name(dtype)));
          CAPTURE(d);
          CAPTURE(n);
          CHECK(same_bits(problem.run_gathered(*kernels, n, row),
                          {expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(n)}));
        }
      }
    }
  }
}

TEST_CASE("axpy: every instruction set gives the bits of the specification for all lengths and row counts") {
  for (const DType dtype : kDtypes) {
    for (const std::size_t d : lengths(dtype == DType::kQ4 ? kQ4Columns : 1)) {
      for (const std::size_t n : {1, 2, 4, 5, 9}) {
        const std::size_t stride = dtype == DType::kQ4 ? d : d + 1;
        const Problem problem(dtype, n, 1, d, stride, n % 3, d + n);
        Random random(d);
        const std::vector<float> a = random.floats(n);
        const std::vector<float> y = random.floats(d);
        const std::vector<float> expected = run_axpy(scalar(), problem, a, y, 0, d);
        for (const DenseKernels* kernels : available_dense_kernels()) {
          CAPTURE(std::string(kernels->name));
          CAPTURE(std::string(dtype_name(dtype)));
          CAPTURE(d);
          CAPTURE(n);
          CHECK(same_bits(run_axpy(*kernels, problem, a, y, 0, d), expected));
        }
      }
    }
  }
}

TEST_CASE("axpy: columns may be split anywhere at multiples of 64 without changing a bit") {
  constexpr std::size_t kD = 256;
  constexpr std::size_t kRows = 6;
  for (const DType dtype : kDtypes) {
    const Problem problem(dtype, kRows, 1, kD, kD, 0, 3);
    Random random(4);
    const std::vector<float> a = random.floats(kRows);
    const std::vector<float> y = random.floats(kD);
    for (const DenseKernels* kernels : available_dense_kernels()) {
      CAPTURE(std::string(kernels->name));
      CAPTURE(std::string(dtype_name(dtype)));
      const std::vector<float> whole = run_axpy(*kernels, problem, a, y, 0, kD);
      for (std::size_t cut = 64; cut < kD; cut += 64) {
        const std::vector<float> left = run_axpy(*kernels, problem, a, y, 0, cut);
        CHECK(same_bits(run_axpy(*kernels, problem, a, left, cut, kD), whole));
      }
    }
  }
}

TEST_CASE("read: depends on every word") {
  std::vector<std::uint8_t> data = Random(1).bytes(64 * 37);
  for (const DenseKernels* kernels : available_dense_kernels()) {
    CAPTURE(std::string(kernels->name));
    const std::uint64_t before = kernels->read(data.data(), data.size());
    for (std::size_t i = 0; i < data.size(); i += 8) {
      data[i] ^= 1U;
      CHECK(kernels->read(data.data(), data.size()) != before);
      data[i] ^= 1U;
    }
    CHECK(kernels->read(data.data(), 0) == 0);
  }
}

}  // namespace
}  // namespace terrace::test
