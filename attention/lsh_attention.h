// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "attention/kernels/attention_kernels.h"
#include "attention/lsh_hash.h"
#include "attention/lsh_state.h"
#include "attention/memory_window.h"
#include "engine/exec.h"
#include "engine/progress.h"
#include "engine/tensor.h"

namespace terrace {

struct LshConfig {
  std::size_t n_heads = 0, d_k = 0, d_v = 0;
  std::size_t chunk_len = 128;
  std::size_t n_chunks_before = 1, n_chunks_after = 0;
  std::size_t n_hashes = 1;
  std::vector<std::uint32_t> n_buckets = {};  ///< factors; empty: derived from the length (full form only)
  std::size_t mem_len = 2048;                 ///< rows remembered while decoding
  std::size_t drop_len = 256;                 ///< rows forgotten at once
};

/// LSH attention of Reformer as Trax defines it (trax/layers/research/efficient_attention.py), on projected
/// shared-QK rows. LSHSelfAttention, PureLSHSelfAttention and the LSH branch of MixedLSHSelfAttention differ
/// only in the maps around it. qk [n, n_heads * d_k], v and y [n, n_heads * d_v].
class LshAttention {
 public:
  LshAttention() = default;
  /// `rotations` [n_heads, n_hashes, sum(factors) / 2, d_k] (a view) with `n_rotations` vectors per round,
  /// which must be half the sum of the factors when n_buckets is given. Throws Error{kBadConfig}.
  LshAttention(const AttentionKernels& kernels, const LshConfig& config, const float* rotations,
               std::size_t n_rotations);

  const LshConfig& config() const noexcept { return config_; }
  const MemoryWindow& window() const noexcept { return window_; }

  /// Whole sequence: sort by (round, bucket, position), attend inside chunks of the sorted list and their
  /// neighbours (wrapping around, without a test for equal buckets and without correction for a key met in
  /// several rounds), mix the rounds with weights softmax(logsumexp). Scores and penalties as in
  /// SelfAttention with share_qk. `n_real` < n marks trailing padding, which goes to a bucket of its own.
  /// Throws Error{kBadArgument} unless n_hashes * n is a multiple of chunk_len, Error{kBadConfig} when the
  /// number of buckets derived from n does not fit the rotations. `tick` is told of n rows in all, a share
  /// per head. Memory: n_hashes * n * (d_v + a few) floats of workspace.
  void full(const Exec& exec, ConstRows qk, ConstRows v, std::size_t n_real, bool causal, Rows y,
            const RowTick& tick = {}) const;

  /// Incremental causal form: Trax's one-token rule, row by row. Of the remembered slots the budget() of
  /// highest priority is taken: those that share a bucket with the query in any round, newest first, then the
  /// other slots, newest first; one softmax over them, the query's own slot only where it is alone. The empty
  /// slot after the query takes part in the selection (it always uses up a place unless the memory is full)
  /// but has no weight, as in Trax. Cost: O(budget * n_hashes) per head and row, whatever the length. With
  /// attends_all(), the exact attention that this approximates: every remembered slot but the query's own, at
  /// a cost proportional to their number. Same bits for any split into calls.
  void step(const Exec& exec, LshState& state, ConstRows qk, ConstRows v, Rows y) const;

  /// A state for step, with keys and values of `type`. Throws Error{kBadConfig} without explicit n_buckets
  /// (Trax would derive the count from a single row, unrelated to what the prefill used), Error{kOutOfMemory}.
  LshState make_state(KvType type, std::size_t max_length) const;

  /// Slots that a query attends to at most: n_hashes * chunk_len * (1 + n_chunks_before).
  std::size_t budget() const noexcept {
    return config_.n_hashes * config_.chunk_len * (1 + config_.n_chunks_before);
  }

  /// The slots that the query at slot `t` of `state` attends to, ascending (without its own unless it is
  /// alone). For tests and reports; `t` must be the newest slot.
  std::vector<std::uint32_t> selected(const LshState& state, std::size_t head, std::size_t t) const;

  /// Workspace for up to `max_rows` rows per call on `n_threads` threads; the larger of both forms.
  std::size_t workspace_bytes(std::size_t max_rows, unsigned n_threads) const noexcept;

 private:
  class WholeSequence;

  LshHash make_hash(LshBuckets buckets) const;

  const AttentionKernels* kernels_ = nullptr;
  LshConfig config_;
  MemoryWindow window_;
  const float* rotations_ = nullptr;
  std::size_t n_rotations_ = 0;
  std::optional<LshHash> hash_;  // where n_buckets is explicit
};

}  // namespace terrace
