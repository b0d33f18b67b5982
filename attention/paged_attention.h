// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>

#include "attention/kernels/attention_kernels.h"
#include "attention/kv_cache.h"
#include "attention/memory_window.h"
#include "engine/exec.h"
#include "engine/task_ref.h"
#include "engine/tensor.h"

namespace terrace {

/// Which slots of a cache each query row sees: a range whose ends never decrease from row to row.
struct VisibleSlots {
  struct Range {
    std::size_t begin, end;
  };

  /// Every row sees all `length` slots.
  static constexpr VisibleSlots all(std::size_t length) noexcept { return {length, false, false, {}}; }
  /// Row t owns slot `first + t` and sees the slots of its window up to and including its own; with
  /// `skip_self` its own only where there is no other.
  static constexpr VisibleSlots causal(std::size_t first, bool skip_self = false,
                                       MemoryWindow window = {}) noexcept {
    return {first, true, skip_self, window};
  }

  constexpr Range of(std::size_t row) const noexcept {
    if (!is_causal) return {0, first};
    const std::size_t own = first + row;
    const std::size_t begin = window.begin(own);
    return {begin, skip_self && own > begin ? own : own + 1};
  }

  std::size_t first;  ///< slot of row 0; the number of slots where every row sees all
  bool is_causal;
  bool skip_self;
  MemoryWindow window;
};

/// Softmax attention over a paged cache: what causal, bidirectional and windowed attention have in common.
///
/// Numbers: a row's softmax state is computed per page, pages of a segment (kSegmentPages) are merged in
/// order, then segments are merged in order. Work is cut at segments and rows only, so every cut gives the
/// same bits. Work is shared as (KV head, block of rows); when there are fewer of those than threads want, as
/// (KV head, block, segments) with a second phase that merges the segments.
class PagedAttention {
 public:
  /// Pages of a segment. 1,024 slots of one head are 256 KiB of bf16 keys and values: enough for a chunk of
  /// work, while the states that wait for the second phase are only 1/1000 of what was read.
  static constexpr std::size_t kSegmentPages = 8;
  /// Query rows (times query heads of the KV head) that pass over a page while it is in the cache.
  static constexpr std::size_t kBlockRows = 64;
  /// What a block costs beside its keys and values, in bytes read: gathering its queries, the exponentials,
  /// the last division.
  static constexpr std::size_t kBlockWork = 8192;

  PagedAttention() = default;
  /// `scale` 0 means 1 / sqrt(d_k). Throws Error{kBadConfig} unless n_heads is a multiple of n_kv_heads.
  PagedAttention(const AttentionKernels& kernels, std::size_t n_heads, std::size_t n_kv_heads,
                 std::size_t d_k, std::size_t d_v, float scale);

  std::size_t n_heads() const noexcept { return n_kv_heads_ * group_; }
  std::size_t n_kv_heads() const noexcept { return n_kv_heads_; }
  std::size_t d_k() const noexcept { return d_k_; }
  std::size_t d_v() const noexcept { return d_v_; }

  /// q [T, n_heads * d_k] -> y [T, n_heads * d_v]; every row sees at least one slot.
  void run(const Exec& exec, const KvCache& kv, const VisibleSlots& visible, ConstRows q, Rows y) const;
  /// kv.append(exec, k, v), then run(): same bits. Where a KV head is one block, the thread that attends to
  /// its rows also writes them: one phase less, and their lines need not travel.
  /// `make`, if given, is a task of the leader that fills q, k and v before anything reads them: in that
  /// phase too, while other threads fetch the keys and values they will need.
  void append_and_run(const Exec& exec, KvCache& kv, ConstRows k, ConstRows v, const VisibleSlots& visible,
                      ConstRows q, Rows y, TaskRef make = {}) const;

  /// Work of a pass over `n_slots` slots, as Exec counts it: multiply-adds of all query rows, or what
  /// `n_blocks` blocks of rows read. From two times Exec::kMinWorkPerChunk on it is shared.
  static constexpr std::size_t work_of(std::size_t n_slots, std::size_t multiply_adds_per_slot,
                                       std::size_t bytes_per_slot, std::size_t n_blocks) noexcept {
    return std::max(n_slots * multiply_adds_per_slot, n_slots * bytes_per_slot + n_blocks * kBlockWork);
  }

  /// Workspace that run takes for up to `max_rows` rows and `max_length` slots.
  std::size_t workspace_bytes(std::size_t max_rows, std::size_t max_length,
                              unsigned n_threads) const noexcept;

 private:
  struct Block;    // rows of one KV head that are worked on together
  struct Scratch;  // memory of one chunk
  struct Plan;     // how the work is cut
  struct NewRows;  // keys and values that are not in the cache yet

  Plan plan(const Exec& exec, const KvCache& kv, const VisibleSlots& visible,
            std::size_t n_rows) const noexcept;
  std::size_t scratch_bytes(std::size_t rows) const noexcept;
  std::size_t block_tokens() const noexcept;
  Block block(std::size_t index, std::size_t n_rows) const noexcept;
  Scratch scratch_at(std::byte* memory, std::size_t rows) const noexcept;
  float* output(const Block& block, std::size_t r, Rows y) const noexcept;
  void prepare(const KvCache& kv, const Block& block, const VisibleSlots& visible, ConstRows q,
               Scratch& scratch) const noexcept;
  void attend_segment(const KvCache& kv, const Block& block, std::size_t segment, const Scratch& scratch,
                      float* states) const noexcept;
  void attend_block(const KvCache& kv, const Block& block, const Scratch& scratch, Rows y) const noexcept;
  void attend(const Exec& exec, const KvCache& kv, const VisibleSlots& visible, const Plan& plan, ConstRows q,
              Rows y, const NewRows* rows) const;
  void attend_in_one_phase(const Exec& exec, const KvCache& kv, const VisibleSlots& visible, const Plan& plan,
                           std::byte* memory, ConstRows q, Rows y, const NewRows* rows) const;
  void attend_in_two_phases(const Exec& exec, const KvCache& kv, const VisibleSlots& visible,
                            const Plan& plan, std::byte* memory, ConstRows q, Rows y) const;

  const AttentionKernels* kernels_ = nullptr;
  std::size_t n_kv_heads_ = 0, group_ = 0, d_k_ = 0, d_v_ = 0;
  float scale_ = 0;
};

}  // namespace terrace
