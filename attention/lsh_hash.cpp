// SPDX-License-Identifier: Apache-2.0
#include "attention/lsh_hash.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/error.h"

namespace terrace {
namespace {

/// More buckets than this are the product of two factors.
constexpr std::size_t kMostInOneFactor = 128;

/// First index of the largest element of [u ; -u].
std::uint32_t argmax_with_negatives(const float* u, std::uint32_t half) noexcept {
  std::uint32_t best = 0;
  for (std::uint32_t i = 1; i < half; ++i) {
    if (u[i] > u[best]) best = i;
  }
  float top = u[best];
  for (std::uint32_t i = 0; i < half; ++i) {
    if (-u[i] > top) {
      top = -u[i];
      best = half + i;
    }
  }
  return best;
}

}  // namespace

std::uint32_t LshBuckets::total() const noexcept {
  std::uint32_t product = 1;
  for (const std::uint32_t factor : factors) product *= factor;
  return product;
}

std::size_t LshBuckets::n_rotations() const noexcept {
  std::size_t sum = 0;
  for (const std::uint32_t factor : factors) sum += factor / 2;
  return sum;
}

std::size_t LshBuckets::most_rotations(std::size_t max_length, std::size_t chunk_len) {
  const auto rotations = [&](std::size_t n) {
    return from_length(n / 2 * chunk_len, chunk_len).n_rotations();
  };
  // They grow with the number of buckets until a second factor comes in, and then until the first one doubles.
  const std::size_t n_most = 2 * std::max<std::size_t>(1, max_length / chunk_len);
  std::size_t most = std::max(rotations(n_most), rotations(std::min(n_most, kMostInOneFactor)));
  for (std::size_t n = 4; n <= n_most; n *= 4) most = std::max(most, rotations(n));
  return most;
}

LshBuckets LshBuckets::from_length(std::size_t length, std::size_t chunk_len) {
  const std::size_t n = 2 * std::max<std::size_t>(1, length / chunk_len);
  if (n <= kMostInOneFactor) return {{static_cast<std::uint32_t>(n)}};
  std::size_t first = 1;  // the smallest power of two that is not below the square root
  while (first * first < n) first *= 2;
  return {{static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(2 * (n / (2 * first)))}};
}

LshHash::LshHash(const AttentionKernels& kernels, LshBuckets buckets, std::size_t n_heads,
                 std::size_t n_hashes, std::size_t d_k, const float* rotations)
    : kernels_(&kernels), buckets_(std::move(buckets)), n_hashes_(n_hashes), d_k_(d_k) {
  TERRACE_CHECK(!buckets_.factors.empty() && n_hashes > 0 && d_k > 0, kBadConfig,
                "LSH attention needs buckets, hash rounds and channels");
  std::uint64_t total = 1;
  for (const std::uint32_t factor : buckets_.factors) {
    TERRACE_CHECK(
        factor > 0 && factor % 2 == 0, kBadConfig,
        "LSH attention: every factor of the number of buckets must be even, found " + std::to_string(factor));
    total *= factor;
    TERRACE_CHECK(total <= kMostBuckets, kBadConfig,
                  "LSH attention: more than " + std::to_string(kMostBuckets) + " buckets");
  }
  n_rotations_ = buckets_.n_rotations();
  rotations_.resize(n_heads * n_hashes * n_rotations_);
  for (std::size_t i = 0; i < rotations_.size(); ++i) rotations_[i] = rotations + i * d_k;
}

void LshHash::hash(std::size_t head, const float* x, std::uint32_t* ids, float* scratch) const noexcept {
  const std::size_t n = n_hashes_ * n_rotations_;
  kernels_->dot_rows(x, rotations_.data() + head * n, n, d_k_, 1.0F, scratch);
  for (std::size_t round = 0; round < n_hashes_; ++round) {
    const float* u = scratch + round * n_rotations_;
    std::uint32_t id = 0;
    std::uint32_t digit_value = 1;
    for (const std::uint32_t factor : buckets_.factors) {
      id += digit_value * argmax_with_negatives(u, factor / 2);
      digit_value *= factor;
      u += factor / 2;
    }
    ids[round] = id;
  }
}

}  // namespace terrace
