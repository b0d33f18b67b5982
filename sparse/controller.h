// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/linear.h"
#include "sparse/kernels/sparse_kernels.h"

namespace terrace {

/// Chooses one unit in each block of `block_size` units.
///
///   z = up (down x) + bias;    pick[b] = argmax over block b of z
///
/// Ties: the lowest index wins. A NaN logit never wins; a block without any logit above -inf picks its unit
/// 0. Source: Jaszczur et al. 2021, sec. 3.1; Trax `_SparseFFController` at inference (no noise). Cost per
/// call: r*d + F*r weights once (plus the bias), which is most of what a sparse feed-forward layer reads.
class Controller {
 public:
  Controller() = default;
  /// down [r, d], up [F, r], bias [F]. Throws Error{kBadArgument} if the shapes disagree or block_size does
  /// not divide F.
  Controller(const DenseKernels& kernels, const WeightView& down, const WeightView& up, const float* bias,
             std::size_t block_size);

  std::size_t d_model() const noexcept { return down_.d_in(); }
  std::size_t d_lowrank() const noexcept { return up_.cols; }
  std::size_t n_units() const noexcept { return up_.rows; }
  std::size_t block_size() const noexcept { return block_size_; }
  std::size_t bytes_per_token(std::size_t width) const noexcept;
  const Linear& down() const noexcept { return down_; }
  DType up_dtype() const noexcept { return up_.dtype; }
  /// How the rows that pick() takes are packed.
  Packs packs() const noexcept { return tile_packs_for(*kernels_, up_.dtype); }

  /// Prefetches the rows of blocks [begin, end) for a coming pick() where that helps: float kernels read the
  /// rows of a pick() as four streams and prefetch what lies ahead of each, which is the next stream
  /// (lm1b-24L bf16, programs in turn: 4.75 ms per token without, 4.43 with). The other kernels prefetch the
  /// rows themselves, while they multiply.
  void prefetch(std::size_t begin, std::size_t end) const noexcept;

  /// Decides blocks [begin, end) for each row of `h` = down x (prepared for up_dtype(), packed as packs()),
  /// on the calling thread.
  ///   picks[t * stride + b]     element 0..block_size-1 of block b, begin <= b < end
  ///   softmax[t * stride + b]   its probability within the block; may be null
  /// `logits` is scratch of h.size() * (end - begin) * block_size floats.
  void pick(const PreparedRows& h, std::size_t begin, std::size_t end, float* logits, std::uint32_t* picks,
            float* softmax, std::size_t stride) const noexcept;

 private:
  const DenseKernels* kernels_ = nullptr;
  const SparseKernels* sparse_ = nullptr;
  Linear down_;
  WeightView up_;
  const float* bias_ = nullptr;
  std::size_t block_size_ = 0;
};

}  // namespace terrace
