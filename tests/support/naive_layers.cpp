// SPDX-License-Identifier: Apache-2.0
#include "tests/support/naive_layers.h"

#include <algorithm>
#include <cmath>

namespace terrace::test {

Matrix naive_linear(const Matrix& x, const Matrix& w, const Vector& b) {
  Matrix y(x.rows, w.rows);
  for (std::size_t t = 0; t < x.rows; ++t) {
    for (std::size_t o = 0; o < w.rows; ++o) {
      double sum = b.empty() ? 0.0 : b[o];
      for (std::size_t i = 0; i < w.cols; ++i) sum += x(t, i) * w(o, i);
      y(t, o) = sum;
    }
  }
  return y;
}

Matrix naive_factored(const Matrix& x, const Matrix& gate, const Matrix& proj, const Vector& b) {
  Matrix y(x.rows, gate.rows * proj.rows);
  for (std::size_t t = 0; t < x.rows; ++t) {
    for (std::size_t s = 0; s < gate.rows; ++s) {
      for (std::size_t m = 0; m < proj.rows; ++m) {
        double sum = b.empty() ? 0.0 : b[s * proj.rows + m];
        for (std::size_t i = 0; i < x.cols; ++i) sum += x(t, i) * gate(s, i) * proj(m, i);
        y(t, s * proj.rows + m) = sum;
      }
    }
  }
  return y;
}

Matrix naive_conv(const Matrix& x, const Matrix& w, const Vector& b, std::size_t n_modules,
                  std::size_t kernel_size, std::size_t n_steps) {
  if (n_modules == 1) return naive_linear(x, w, b);
  const std::size_t n_channels = x.cols / n_modules;
  Matrix y(x.rows, n_modules * w.rows);
  for (std::size_t t = 0; t < x.rows; ++t) {
    for (std::size_t s = 0; s < n_modules; ++s) {
      for (std::size_t o = 0; o < w.rows; ++o) {
        double sum = b.empty() ? 0.0 : b[o];
        for (std::size_t j = 0; j < kernel_size; ++j) {
          for (std::size_t i = 0; i < n_steps; ++i) {
            if (s + j < kernel_size / 2 || s + j - kernel_size / 2 >= n_modules || t + i + 1 < n_steps)
              continue;
            const std::size_t module = s + j - kernel_size / 2;
            const std::size_t step = t + i + 1 - n_steps;
            for (std::size_t c = 0; c < n_channels; ++c) {
              sum += x(step, module * n_channels + c) * w(o, (j * n_steps + i) * n_channels + c);
            }
          }
        }
        y(t, s * w.rows + o) = sum;
      }
    }
  }
  return y;
}

Matrix naive_local(const Matrix& x, const Matrix& w, const Vector& b, std::size_t n_modules,
                   std::size_t kernel_size) {
  if (n_modules == 1) return naive_linear(x, w, b);
  const std::size_t n_channels = x.cols / n_modules;
  const std::size_t n_units = w.rows / n_modules;
  Matrix y(x.rows, w.rows);
  for (std::size_t t = 0; t < x.rows; ++t) {
    for (std::size_t r = 0; r < w.rows; ++r) {
      double sum = b.empty() ? 0.0 : b[r];
      for (std::size_t k = 0; k < kernel_size; ++k) {
        const auto shifted = static_cast<long>(r / n_units + k) - static_cast<long>(kernel_size / 2);
        const auto n = static_cast<long>(n_modules);
        const auto module = static_cast<std::size_t>((shifted % n + n) % n);
        for (std::size_t c = 0; c < n_channels; ++c)
          sum += x(t, module * n_channels + c) * w(r, k * n_channels + c);
      }
      y(t, r) = sum;
    }
  }
  return y;
}

Matrix naive_controller(const Matrix& x, const Matrix& down, const Matrix& up, const Vector& bias) {
  return naive_linear(naive_linear(x, down, {}), up, bias);
}

Matrix naive_units(const Matrix& x, const Matrix& units, const Vector& b,
                   const std::vector<std::uint32_t>& active, const std::vector<double>& gains) {
  const std::size_t n_active = active.size() / x.rows;
  Matrix y(x.rows, x.cols);
  for (std::size_t t = 0; t < x.rows; ++t) {
    for (std::size_t c = 0; c < x.cols && !b.empty(); ++c) y(t, c) = b[c];
    for (std::size_t k = 0; k < n_active; ++k) {
      const std::size_t slot = t * n_active + k;
      const std::size_t w1 = std::size_t{2} * active[slot];
      double a = 0.0;
      for (std::size_t c = 0; c < x.cols; ++c) a += x(t, c) * units(w1, c);
      a = std::max(a, 0.0) * (gains.empty() ? 1.0 : gains[slot]);
      for (std::size_t c = 0; c < x.cols; ++c) y(t, c) += a * units(w1 + 1, c);
    }
  }
  return y;
}

Matrix naive_sru(const Matrix& x, const Matrix& w, const Vector& b) {
  const std::size_t s = x.cols;
  const Matrix gates = naive_linear(x, w, b);
  const auto sigmoid = [](double v) { return 1.0 / (1.0 + std::exp(-v)); };
  std::vector<double> c(s, 0.0);
  Matrix h(x.rows, s);
  for (std::size_t t = 0; t < x.rows; ++t) {
    for (std::size_t i = 0; i < s; ++i) {
      const double r = sigmoid(gates(t, i));
      const double f = sigmoid(gates(t, s + i));
      c[i] = f * c[i] + gates(t, 2 * s + i) * (1.0 - f);
      h(t, i) = c[i] * r + x(t, i) * (1.0 - r) * std::sqrt(3.0);
    }
  }
  return h;
}

Matrix naive_layer_norm(const Matrix& x, const Vector& scale, const Vector& bias, double epsilon) {
  Matrix y(x.rows, x.cols);
  const auto n = static_cast<double>(x.cols);
  for (std::size_t t = 0; t < x.rows; ++t) {
    double mean = 0.0;
    double variance = 0.0;
    for (std::size_t c = 0; c < x.cols; ++c) mean += x(t, c) / n;
    for (std::size_t c = 0; c < x.cols; ++c) variance += (x(t, c) - mean) * (x(t, c) - mean) / n;
    for (std::size_t c = 0; c < x.cols; ++c) {
      y(t, c) = (x(t, c) - mean) / std::sqrt(variance + epsilon) * scale[c] + bias[c];
    }
  }
  return y;
}

double relative_difference(const std::vector<float>& a, const Matrix& b) {
  double difference = 0.0;
  double largest = 0.0;
  for (std::size_t i = 0; i < b.data.size(); ++i) {
    // A NaN must not pass for a small difference.
    const double d = std::abs(a[i] - b.data[i]);
    difference = d <= difference ? difference : d;
    largest = std::max(largest, std::abs(b.data[i]));
  }
  return a.size() == b.data.size() ? difference / (largest > 0.0 ? largest : 1.0) : 1e30;
}

}  // namespace terrace::test
