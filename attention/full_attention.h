// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "attention/kernels/attention_kernels.h"
#include "attention/kv_cache.h"
#include "attention/paged_attention.h"
#include "engine/exec.h"
#include "engine/tensor.h"

namespace terrace {

/// Softmax attention in which every query row sees every slot of a cache: bidirectional self-attention of an
/// encoder (append the keys and values of all real rows, then forward) and cross attention over precomputed
/// keys and values.
///
///   y[t, h] = sum_s softmax_s(scale * q[t, h] . k[s, g]) v[s, g]        over all slots s < kv.length()
///
/// Padding is never appended: Trax replaces the scores of padding keys by -1e9, which gives them weight 0.
/// The same kernels and summation order as CausalAttention. Cost: 2 * length * n_heads * d_head multiply-adds
/// per row; memory beyond the cache is a fixed amount per thread. Source: Trax `Attention`, `AttentionQKV`.
class FullAttention {
 public:
  FullAttention() = default;
  /// `scale` 0 means 1 / sqrt(d_k). Throws Error{kBadConfig} unless n_heads is a multiple of n_kv_heads.
  FullAttention(const AttentionKernels& kernels, std::size_t n_heads, std::size_t n_kv_heads, std::size_t d_k,
                std::size_t d_v, float scale = 0)
      : core_(kernels, n_heads, n_kv_heads, d_k, d_v, scale) {}

  std::size_t n_heads() const noexcept { return core_.n_heads(); }
  std::size_t d_k() const noexcept { return core_.d_k(); }
  std::size_t d_v() const noexcept { return core_.d_v(); }

  /// A cache of the right shape. Throws Error{kOutOfMemory}.
  KvCache make_cache(KvType type, std::size_t max_length) const {
    return KvCache(core_.n_kv_heads(), core_.d_k(), core_.d_v(), type, max_length);
  }

  /// q [n, n_heads * d_k], y [n, n_heads * d_v]; they must not overlap. An empty cache gives zeros.
  void forward(const Exec& exec, const KvCache& kv, ConstRows q, Rows y) const;

  /// Workspace that forward takes for up to `max_length` slots on `n_threads` threads.
  std::size_t workspace_bytes(std::size_t max_length, unsigned n_threads) const noexcept;

 private:
  PagedAttention core_;
};

}  // namespace terrace
