// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "attention/kernels/attention_kernels.h"

namespace terrace {

/// Most buckets of one round: bucket numbers of all rounds must fit 32 bits.
inline constexpr std::uint64_t kMostBuckets = std::uint64_t{1} << 24;

/// How many buckets a hash round has: the product of even factors, one digit of the bucket number per factor.
struct LshBuckets {
  std::vector<std::uint32_t> factors;

  std::uint32_t total() const noexcept;
  /// Rotation vectors per round: half the sum of the factors.
  std::size_t n_rotations() const noexcept;

  /// The plan Trax derives when n_buckets is None: about 2 * length / chunk_len buckets, two factors above
  /// 128.
  static LshBuckets from_length(std::size_t length, std::size_t chunk_len);
  /// The most rotation vectors that from_length() asks for at any length up to `max_length`.
  static std::size_t most_rotations(std::size_t max_length, std::size_t chunk_len);
};

/// Cross-polytope hash of vectors of one head.
///
///   u = R x
///   digit_i = argmax [u_i ; -u_i], u_i the piece of u that belongs to factor i (first maximum wins)
///   bucket = sum_i digit_i * prod_{k < i} factor_k
///
/// The scale of x does not matter. Source: Andoni et al. 2015; Kitaev et al. 2020 (Reformer); Trax
/// `hash_vecs` (trax/layers/research/efficient_attention.py).
/// Cost: n_hashes * n_rotations * d_k multiply-adds per vector.
class LshHash {
 public:
  LshHash() = default;
  /// `rotations` [n_heads, n_hashes, n_rotations, d_k], one row per rotation vector; a view.
  /// Throws Error{kBadConfig} unless every factor is even and positive
  /// and there are at most kMostBuckets buckets.
  LshHash(const AttentionKernels& kernels, LshBuckets buckets, std::size_t n_heads, std::size_t n_hashes,
          std::size_t d_k, const float* rotations);

  const LshBuckets& buckets() const noexcept { return buckets_; }
  std::size_t n_hashes() const noexcept { return n_hashes_; }

  /// ids[round] = bucket of x [d_k] under the rotations of `head`. `scratch` holds scratch_floats() floats.
  void hash(std::size_t head, const float* x, std::uint32_t* ids, float* scratch) const noexcept;
  std::size_t scratch_floats() const noexcept { return n_hashes_ * n_rotations_; }

 private:
  const AttentionKernels* kernels_ = nullptr;
  LshBuckets buckets_;
  std::size_t n_hashes_ = 0, n_rotations_ = 0, d_k_ = 0;
  std::vector<const float*> rotations_;  // [n_heads, n_hashes, n_rotations] rows of d_k
};

}  // namespace terrace
