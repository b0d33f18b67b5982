// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "attention/kernels/attention_kernels.h"
#include "attention/kv_cache.h"
#include "attention/paged_attention.h"
#include "engine/exec.h"
#include "engine/task_ref.h"
#include "engine/tensor.h"

namespace terrace {

/// Causal softmax attention of T query rows over a cache that already holds their own keys and values.
///
///   row t of T sees the slots s < length - T + t + 1
///   y[t, h] = sum_s softmax_s(scale * q[t, h] . k[s, g]) v[s, g]        g = h / (n_heads / n_kv_heads)
///
/// q [T, n_heads * d_k], y [T, n_heads * d_v]; the cache has n_kv_heads heads (n_heads: multi-head, fewer:
/// grouped, one: multi-query). Keys in the future of a row are skipped, which is what replacing their score
/// by -1e9 amounts to in f32.
///
/// Numbers: scores, maximum, exponentials and weighted values are computed per page of kPageSlots slots and
/// pages are merged in order, so the bits of a row depend on nothing but q, the cache and the row's own slot:
/// not on T, threads, or the instruction set.
///
/// Cost: every cached byte is read once per call (once per block of rows in a long prefill) for all query
/// heads of its KV head; length * n_heads * (d_k + d_v) multiply-adds per row.
///
/// Source: Vaswani et al. 2017; Shazeer 2019 (multi-query); Ainslie et al. 2023 (grouped-query).
class CausalAttention {
 public:
  CausalAttention() = default;
  /// `scale` 0 means 1 / sqrt(d_k). Throws Error{kBadConfig} unless n_heads is a multiple of n_kv_heads.
  CausalAttention(const AttentionKernels& kernels, std::size_t n_heads, std::size_t n_kv_heads,
                  std::size_t d_k, std::size_t d_v, float scale = 0)
      : core_(kernels, n_heads, n_kv_heads, d_k, d_v, scale) {}

  std::size_t n_heads() const noexcept { return core_.n_heads(); }
  std::size_t n_kv_heads() const noexcept { return core_.n_kv_heads(); }
  std::size_t d_k() const noexcept { return core_.d_k(); }
  std::size_t d_v() const noexcept { return core_.d_v(); }

  /// A cache of the right shape. Throws Error{kOutOfMemory}.
  KvCache make_cache(KvType type, std::size_t max_length) const {
    return KvCache(core_.n_kv_heads(), core_.d_k(), core_.d_v(), type, max_length);
  }

  /// q and y must not overlap. Needs 1 <= q.n <= kv.length().
  void forward(const Exec& exec, const KvCache& kv, ConstRows q, Rows y) const;
  /// kv.append(exec, k, v), then forward(): same bits, with one phase less where possible.
  /// `make`, if given, fills q, k and v first; see PagedAttention.
  void step(const Exec& exec, KvCache& kv, ConstRows q, ConstRows k, ConstRows v, Rows y,
            TaskRef make = {}) const;

  /// Workspace that forward takes for up to `max_rows` rows and `max_length` slots on `n_threads` threads.
  std::size_t workspace_bytes(std::size_t max_rows, std::size_t max_length,
                              unsigned n_threads) const noexcept {
    return core_.workspace_bytes(max_rows, max_length, n_threads);
  }

 private:
  PagedAttention core_;
};

}  // namespace terrace
