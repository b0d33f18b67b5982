// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

// The layers once more, straight from their formulas, in double and one whole sequence at a time: what the
// engine is tested against. Nothing here is shared with the engine.

namespace terrace::test {

/// Row-major matrix of doubles.
struct Matrix {
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::vector<double> data;

  Matrix() = default;
  Matrix(std::size_t r, std::size_t c) : rows(r), cols(c), data(r * c) {}
  Matrix(std::size_t r, std::size_t c, const std::vector<float>& values)
      : rows(r), cols(c), data(values.begin(), values.end()) {}
  double& operator()(std::size_t r, std::size_t c) { return data[r * cols + c]; }
  double operator()(std::size_t r, std::size_t c) const { return data[r * cols + c]; }
};

using Vector = std::vector<float>;

/// y = x w^T + b; w is [out, in], b may be empty.
Matrix naive_linear(const Matrix& x, const Matrix& w, const Vector& b);

/// y[s*M + m] = b + sum_i x[i] gate[s, i] proj[m, i].
Matrix naive_factored(const Matrix& x, const Matrix& gate, const Matrix& proj, const Vector& b);

/// Convolution over modules (zero padding) and time; w is [U, (j, i, c)]. One module: dense.
Matrix naive_conv(const Matrix& x, const Matrix& w, const Vector& b, std::size_t n_modules,
                  std::size_t kernel_size, std::size_t n_steps);

/// A dense map per module over `kernel_size` modules, circular; w is [(s, o), (k, c)].
Matrix naive_local(const Matrix& x, const Matrix& w, const Vector& b, std::size_t n_modules,
                   std::size_t kernel_size);

/// Logits of a controller, [T, F].
Matrix naive_controller(const Matrix& x, const Matrix& down, const Matrix& up, const Vector& bias);

/// y = b + sum of relu(w1_u x) * gain_u * w2_u over the `active` units of each row ([T, n_active]);
/// units is [2F, d], w1 and w2 rows in turn. `gains` as `active`, or empty for 1.
Matrix naive_units(const Matrix& x, const Matrix& units, const Vector& b,
                   const std::vector<std::uint32_t>& active, const std::vector<double>& gains);

/// Simple recurrent unit from c_0 = 0; w is [3s, s].
Matrix naive_sru(const Matrix& x, const Matrix& w, const Vector& b);

/// Layer normalisation, centred.
Matrix naive_layer_norm(const Matrix& x, const Vector& scale, const Vector& bias, double epsilon);

/// Largest |a - b|, divided by the largest |b| (or 1 if that is 0).
double relative_difference(const std::vector<float>& a, const Matrix& b);

}  // namespace terrace::test
