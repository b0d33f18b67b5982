// SPDX-License-Identifier: Apache-2.0
#include "models/balanced_clusters.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "engine/error.h"
#include "engine/linear.h"

namespace terrace {
namespace {

constexpr int kMostRounds = 20;

/// Rows choose their clusters by similarity [n, n_clusters], each cluster taking n / n_clusters of them.
std::vector<std::uint32_t> assign(ConstRows similarity) {
  const std::size_t n = similarity.n, n_clusters = similarity.width;
  std::vector<float> urgency(n);
  for (std::size_t r = 0; r < n; ++r) {
    const float* const s = similarity.row(r);
    const float mean = std::accumulate(s, s + n_clusters, 0.0F) / static_cast<float>(n_clusters);
    urgency[r] = *std::max_element(s, s + n_clusters) - mean;
  }
  std::vector<std::uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return urgency[a] > urgency[b]; });
  std::vector<std::size_t> room(n_clusters, n / n_clusters);
  std::vector<std::uint32_t> cluster(n);
  for (const std::uint32_t r : order) {
    const float* const s = similarity.row(r);
    std::size_t best = n_clusters;
    for (std::size_t c = 0; c < n_clusters; ++c) {
      if (room[c] > 0 && (best == n_clusters || s[c] > s[best])) best = c;
    }
    cluster[r] = static_cast<std::uint32_t>(best);
    --room[best];
  }
  return cluster;
}

/// Normalised means of the clusters.
void take_centers(ConstRows rows, const std::vector<std::uint32_t>& cluster, Rows centers) noexcept {
  std::fill_n(centers.data, centers.n * centers.width, 0.0F);
  for (std::size_t r = 0; r < rows.n; ++r) {
    float* const center = centers.row(cluster[r]);
    for (std::size_t i = 0; i < rows.width; ++i) center[i] += rows.row(r)[i];
  }
  normalize_rows(centers);
}

}  // namespace

void normalize_rows(Rows rows) noexcept {
  for (std::size_t r = 0; r < rows.n; ++r) {
    float* const row = rows.row(r);
    const double square = std::inner_product(row, row + rows.width, row, 0.0);
    const auto factor = std::isnormal(square) ? static_cast<float>(1 / std::sqrt(square)) : 0.0F;
    if (factor == 0) {
      std::fill_n(row, rows.width, 0.0F);
      continue;
    }
    for (std::size_t i = 0; i < rows.width; ++i) row[i] *= factor;
  }
}

std::vector<std::uint32_t> balanced_clusters(Exec& exec, const DenseKernels& kernels, ConstRows rows,
                                             std::size_t n_clusters, std::uint64_t seed) {
  TERRACE_DCHECK(n_clusters > 0 && rows.n % n_clusters == 0);
  std::vector<float> centers(n_clusters * rows.width), similarity(rows.n * n_clusters);
  const Rows center_rows{centers.data(), n_clusters, rows.width, rows.width};
  // The first centers: some of the rows, by an algorithm that is the same with every standard library.
  std::vector<std::uint32_t> order(rows.n);
  std::iota(order.begin(), order.end(), 0U);
  std::mt19937_64 random(seed);
  for (std::size_t c = 0; c < n_clusters; ++c) {
    std::swap(order[c], order[c + random() % (rows.n - c)]);
    std::copy_n(rows.row(order[c]), rows.width, center_rows.row(c));
  }
  const Linear to_centers(kernels, {centers.data(), nullptr, n_clusters, rows.width, rows.width, DType::kF32},
                          nullptr);
  const Rows similar{similarity.data(), rows.n, n_clusters, n_clusters};
  std::vector<std::uint32_t> cluster;
  for (int round = 0; round < kMostRounds; ++round) {
    const ThreadTeam::Region region(exec.team);
    to_centers.forward(exec, rows, similar);
    std::vector<std::uint32_t> next = assign(similar);
    const bool settled = next == cluster;
    cluster = std::move(next);
    if (settled) break;
    take_centers(rows, cluster, center_rows);
  }
  return cluster;
}

}  // namespace terrace
