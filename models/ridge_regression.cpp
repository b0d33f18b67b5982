// SPDX-License-Identifier: Apache-2.0
#include "models/ridge_regression.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/linear.h"

namespace terrace {
namespace {

/// All dot products of the rows of a with those of b: [a.n, b.n].
std::vector<float> products(Exec& exec, const DenseKernels& kernels, ConstRows a, ConstRows b) {
  std::vector<float> result(a.n * b.n);
  const ThreadTeam::Region region(exec.team);
  const Workspace::Scope scope(exec.ws);
  const Linear map(kernels, {b.data, nullptr, b.n, b.width, b.stride, DType::kF32}, nullptr);
  map.forward(exec, a, {result.data(), a.n, b.n, b.n});
  return result;
}

std::vector<double> means(ConstRows rows) {
  std::vector<double> mean(rows.n);
  for (std::size_t r = 0; r < rows.n; ++r) {
    mean[r] = std::accumulate(rows.row(r), rows.row(r) + rows.width, 0.0) / static_cast<double>(rows.width);
  }
  return mean;
}

/// Lower triangle L of a positive definite matrix, A = L L^T, in its place. Pivots are at least `least`,
/// which those of exact sums would be.
void factorize(std::vector<double>& a, std::size_t n, double least) noexcept {
  for (std::size_t j = 0; j < n; ++j) {
    double* const row_j = a.data() + j * n;
    row_j[j] = std::sqrt(std::max(least, row_j[j] - std::inner_product(row_j, row_j + j, row_j, 0.0)));
    for (std::size_t i = j + 1; i < n; ++i) {
      double* const row_i = a.data() + i * n;
      row_i[j] = (row_i[j] - std::inner_product(row_i, row_i + j, row_j, 0.0)) / row_j[j];
    }
  }
}

/// Solves L L^T x = b in the place of b.
void solve(const std::vector<double>& l, std::size_t n, double* b) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    b[i] = (b[i] - std::inner_product(b, b + i, l.data() + i * n, 0.0)) / l[i * n + i];
  }
  for (std::size_t i = n; i-- > 0;) {
    b[i] /= l[i * n + i];
    for (std::size_t k = 0; k < i; ++k) b[k] -= l[i * n + k] * b[i];
  }
}

}  // namespace

LinearFit fit_linear(Exec& exec, const DenseKernels& kernels, ConstRows x, ConstRows y, double lambda) {
  const std::size_t n = x.n;
  const auto n_samples = static_cast<double>(x.width);
  const std::vector<float> xx = products(exec, kernels, x, x), yx = products(exec, kernels, y, x);
  const std::vector<double> mean_x = means(x), mean_y = means(y);

  // Around the means, so that the bias is not held down.
  std::vector<double> gram(n * n);
  double squares = 0;
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < n; ++k) gram[i * n + k] = xx[i * n + k] - n_samples * mean_x[i] * mean_x[k];
    squares += gram[i * n + i];
  }
  // Inputs that never vary would leave nothing to divide by.
  const double ridge = std::max(lambda * squares / static_cast<double>(n), 1e-30);
  for (std::size_t i = 0; i < n; ++i) gram[i * n + i] += ridge;
  factorize(gram, n, ridge);

  LinearFit fit;
  std::vector<double> row(n);
  for (std::size_t o = 0; o < y.n; ++o) {
    for (std::size_t k = 0; k < n; ++k) row[k] = yx[o * n + k] - n_samples * mean_y[o] * mean_x[k];
    solve(gram, n, row.data());
    fit.bias.push_back(
        static_cast<float>(mean_y[o] - std::inner_product(row.begin(), row.end(), mean_x.begin(), 0.0)));
    std::transform(row.begin(), row.end(), std::back_inserter(fit.weight),
                   [](double w) { return static_cast<float>(w); });
  }
  return fit;
}

}  // namespace terrace
