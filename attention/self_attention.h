// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "attention/kernels/attention_kernels.h"
#include "attention/kv_cache.h"
#include "attention/memory_window.h"
#include "attention/paged_attention.h"
#include "engine/exec.h"
#include "engine/progress.h"
#include "engine/tensor.h"

namespace terrace {

struct SelfAttentionConfig {
  std::size_t n_heads = 0, d_k = 0, d_v = 0;
  bool share_qk = false;
  std::size_t chunk_len = 0;  ///< 0: every position sees every position
  std::size_t n_chunks_before = 0, n_chunks_after = 0;
  /// Rows remembered while decoding; 0: chunk_len * (1 + n_chunks_before), all if unchunked.
  std::size_t mem_len = 0;
  std::size_t drop_len = 0;  ///< rows forgotten at once; 0: chunk_len
};

/// The "efficient" `SelfAttention` of Trax (trax/layers/research/efficient_attention.py) on projected rows.
///
///   score(i, j) = q_i . k_j / sqrt(d_k)         share_qk: k_j = q_j / sqrt(mean(q_j^2) + 1e-6) / sqrt(d_k)
///     minus 1e9 if causal and pos_j > pos_i
///     minus 1e5 if share_qk and pos_j = pos_i
///     minus 1e9 if j is padding
///   y_i = softmax_j(score) v_j, per head
///
/// q, k [n, n_heads * d_k], v and y [n, n_heads * d_v]. With share_qk, k is ignored (pass {}).
class SelfAttention {
 public:
  SelfAttention() = default;
  /// Throws Error{kBadConfig}.
  SelfAttention(const AttentionKernels& kernels, const SelfAttentionConfig& config);

  const SelfAttentionConfig& config() const noexcept { return config_; }

  /// Whole sequence. With chunks, queries of chunk u see the keys of chunks u - before .. u + after modulo
  /// the number of chunks (a chunk met twice counts twice). Rows from n_real on are padding; a padding key at
  /// position 0 or 1 is not recognised as such (as in Trax). Penalties are added, so a row that sees nothing
  /// else gets what Trax gives it. Throws Error{kBadArgument} unless n is a multiple of chunk_len; `tick` is
  /// told of n rows in all. Cost: n * (1 + before + after) * chunk_len * (d_k + d_v) multiply-adds per head;
  /// fixed memory per thread.
  void full(const Exec& exec, ConstRows q, ConstRows k, ConstRows v, std::size_t n_real, bool causal, Rows y,
            const RowTick& tick = {}) const;

  /// Incremental causal form: appends the rows to the cache and attends from each of them to the rows the
  /// memory window still holds. A shared-QK row sees itself only where it sees nothing else. With the default
  /// window and n_chunks_after = 0 this is the full form row by row. Same bits for any split into calls.
  void step(const Exec& exec, KvCache& kv, ConstRows q, ConstRows k, ConstRows v, Rows y) const;

  /// A cache for step. Throws Error{kOutOfMemory}.
  KvCache make_cache(KvType type, std::size_t max_length) const {
    return KvCache(config_.n_heads, config_.d_k, config_.d_v, type, max_length);
  }

  /// Workspace for up to `max_rows` rows per call, `max_length` slots, `n_threads` threads; the larger of
  /// both forms.
  std::size_t workspace_bytes(std::size_t max_rows, std::size_t max_length,
                              unsigned n_threads) const noexcept;

 private:
  const AttentionKernels* kernels_ = nullptr;
  SelfAttentionConfig config_;
  MemoryWindow window_;
  PagedAttention core_;
};

}  // namespace terrace
