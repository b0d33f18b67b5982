// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "engine/recurrent_state.h"
#include "sparse/convolve.h"
#include "sparse/factored_dense.h"
#include "sparse/module_conv.h"
#include "sparse/v_concat.h"

namespace terrace {

/// The paper's sparse query, key and value: one multiplicative layer, then small convolutions over modules
/// and time.
///
///   m = shared(x)
///   q = conv_q(m)
///   k = conv_k(m), or q when no k is given
///   v = conv_v(m), or of m joined with x
///
/// Source: Jaszczur et al. 2021, sec. 3.2; Trax `MultiplicativeConvCausalAttention`.
/// Cost per call: d*S + d*M + (3 + 3 + 1)*Kl*M^2 weights once (M = d/S), against 3*d^2 for dense projections.
/// State: one tail of m for all convolutions that read m; a tail of the join when v reads one.
class SparseQkv {
 public:
  /// `k` may be empty (share_qk). Reserves its state in `layout`.
  /// Throws Error{kBadArgument} if the shapes disagree.
  SparseQkv(const FactoredDense& shared, const LocallyConvDense& q, const LocallyConvDense& k,
            const LocallyConvDense& v, VConcat v_concat, RecurrentLayout& layout);

  std::size_t d_in() const noexcept { return shared_.d_in(); }
  std::size_t d_out() const noexcept { return shared_.d_out(); }
  bool shares_qk() const noexcept { return !k_; }
  std::size_t bytes_per_token() const noexcept;

  /// q, k and v of the rows of x; state in `recurrent`, the session's block, moves on. With share_qk, k
  /// receives a copy of q unless k.data is null.
  void forward(Exec& exec, ConstRows x, const RecurrentBlock& recurrent, Rows q, Rows k, Rows v) const;
  /// Whether the leader does that for one row itself, because sharing it would cost more than it saves.
  bool works_alone(std::size_t n_threads) const noexcept;

 private:
  /// The convolutions that read m alone.
  std::span<const ConvolutionTask> together(Rows q, Rows k, Rows v,
                                            std::array<ConvolutionTask, 3>& tasks) const noexcept;

  FactoredDense shared_;
  LocallyConvDense q_;
  LocallyConvDense k_;
  LocallyConvDense v_;
  VConcat v_concat_;
  StateSlot tail_;         ///< last rows of m
  StateSlot joined_tail_;  ///< last rows of m joined with x; size 0 without v_concat
};

/// A multiplicative layer, a convolution over modules and time, or one after the other: the output layer of
/// sparse attention (`output` mult, conv, multconv) and the sparse query of cross attention.
class SparseAttentionOutput {
 public:
  /// Either part may be empty, not both. Reserves the convolution's tail in `layout`.
  /// Throws Error{kBadArgument} if the shapes disagree.
  SparseAttentionOutput(const FactoredDense& mult, const LocallyConvDense& conv, RecurrentLayout& layout);

  std::size_t d_in() const noexcept { return mult_ ? mult_.d_in() : conv_.d_in(); }
  std::size_t d_out() const noexcept { return conv_ ? conv_.d_out() : mult_.d_out(); }
  std::size_t bytes_per_token() const noexcept;

  /// y = conv(mult(x)). x and y must not overlap.
  void forward(Exec& exec, ConstRows x, const RecurrentBlock& recurrent, Rows y) const;

 private:
  FactoredDense mult_;
  LocallyConvDense conv_;
  StateSlot tail_;
};

}  // namespace terrace
