// SPDX-License-Identifier: Apache-2.0
#include "attention/paged_attention.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>

#include "attention/score_scale.h"
#include "engine/ceil_div.h"
#include "engine/error.h"

namespace terrace {
namespace {

constexpr std::size_t kSegmentSlots = PagedAttention::kSegmentPages * kPageSlots;

/// Below so many blocks per thread the context is cut too: one block more or less for a thread would show.
constexpr std::size_t kFewBlocks = 4;
/// Chunks of one call. Twice as many as that keeps the last ones short where heads make the blocks.
constexpr std::size_t most_chunks(std::size_t n_threads) noexcept {
  return n_threads == 1 ? 1 : 2 * kFewBlocks * n_threads;
}

auto attend_page_of(const AttentionKernels& kernels, KvType type) noexcept {
  switch (type) {
    case KvType::kF32:
      return kernels.attend_page_f32;
    case KvType::kBf16:
      return kernels.attend_page_bf16;
    case KvType::kQ8:
      return kernels.attend_page_q8;
    case KvType::kQ4:
      break;
  }
  return kernels.attend_page_q4;
}

constexpr std::size_t whole_lines(std::size_t bytes) noexcept {
  return ceil_div(bytes, kCacheLine) * kCacheLine;
}

}  // namespace

struct PagedAttention::Block {
  std::size_t kv_head;
  std::size_t first_row;  // first token of the block
  std::size_t n_tokens;
  std::size_t n_rows;  // tokens times query heads of the KV head; row r belongs to token r / group
};

struct PagedAttention::Scratch {
  const float** q;            // [rows]
  QuantizedQuery* quantized;  // [rows], with their bytes and sums
  VisibleSlots::Range* seen;  // [rows]
  PageSpan* spans;            // [rows]
  float* page;                // [rows] states of the page at hand
  float* segment;             // [rows] states of the segment at hand
  float* total;               // [rows]
};

struct PagedAttention::Plan {
  std::size_t n_blocks;
  std::size_t block_rows;  // of the largest block
  std::size_t first_segment;
  std::size_t n_segments;
  std::size_t n_chunks;
  bool by_segment;  // chunks are (block, segments); the states wait for a second phase
};

struct PagedAttention::NewRows {
  KvCache& kv;
  ConstRows k, v;
  TaskRef make;
};

PagedAttention::PagedAttention(const AttentionKernels& kernels, std::size_t n_heads, std::size_t n_kv_heads,
                               std::size_t d_k, std::size_t d_v, float scale)
    : kernels_(&kernels), n_kv_heads_(n_kv_heads), d_k_(d_k), d_v_(d_v) {
  TERRACE_CHECK(n_kv_heads > 0 && n_heads > 0 && n_heads % n_kv_heads == 0, kBadConfig,
                "attention: the number of heads (" + std::to_string(n_heads) +
                    ") must be a multiple of the number of K/V heads (" + std::to_string(n_kv_heads) + ")");
  TERRACE_CHECK(d_k > 0 && d_v > 0, kBadConfig, "attention: heads need at least one channel");
  group_ = n_heads / n_kv_heads;
  scale_ = scale != 0 ? scale : score_scale(d_k);
}

std::size_t PagedAttention::block_tokens() const noexcept {
  return std::max<std::size_t>(1, kBlockRows / group_);
}

PagedAttention::Block PagedAttention::block(std::size_t index, std::size_t n_rows) const noexcept {
  const std::size_t first = index / n_kv_heads_ * block_tokens();
  const std::size_t n_tokens = std::min(block_tokens(), n_rows - first);
  return {index % n_kv_heads_, first, n_tokens, n_tokens * group_};
}

std::size_t PagedAttention::scratch_bytes(std::size_t rows) const noexcept {
  return whole_lines(rows * sizeof(const float*)) + whole_lines(rows * sizeof(QuantizedQuery)) +
         whole_lines(2 * rows * padded_width(d_k_)) +
         2 * whole_lines(rows * q4_groups(d_k_) * sizeof(float)) +
         whole_lines(rows * sizeof(VisibleSlots::Range)) + whole_lines(rows * sizeof(PageSpan)) +
         3 * whole_lines(rows * state_floats(d_v_) * sizeof(float));
}

PagedAttention::Scratch PagedAttention::scratch_at(std::byte* memory, std::size_t rows) const noexcept {
  const auto take = [&memory](std::size_t bytes) {
    std::byte* at = memory;
    memory += whole_lines(bytes);
    return at;
  };
  Scratch scratch{};
  scratch.q = reinterpret_cast<const float**>(take(rows * sizeof(const float*)));
  scratch.quantized = reinterpret_cast<QuantizedQuery*>(take(rows * sizeof(QuantizedQuery)));
  auto* const bytes = reinterpret_cast<std::int8_t*>(take(2 * rows * padded_width(d_k_)));
  auto* const sums = reinterpret_cast<std::int32_t*>(take(rows * q4_groups(d_k_) * sizeof(std::int32_t)));
  auto* const scales = reinterpret_cast<float*>(take(rows * q4_groups(d_k_) * sizeof(float)));
  for (std::size_t r = 0; r < rows; ++r) {
    scratch.quantized[r].group_sums = sums + r * q4_groups(d_k_);
    scratch.quantized[r].group_scales = scales + r * q4_groups(d_k_);
    scratch.quantized[r].high = bytes + 2 * r * padded_width(d_k_);
    scratch.quantized[r].low = scratch.quantized[r].high + padded_width(d_k_);
  }
  scratch.seen = reinterpret_cast<VisibleSlots::Range*>(take(rows * sizeof(VisibleSlots::Range)));
  scratch.spans = reinterpret_cast<PageSpan*>(take(rows * sizeof(PageSpan)));
  const std::size_t state_bytes = rows * state_floats(d_v_) * sizeof(float);
  scratch.page = reinterpret_cast<float*>(take(state_bytes));
  scratch.segment = reinterpret_cast<float*>(take(state_bytes));
  scratch.total = reinterpret_cast<float*>(take(state_bytes));
  return scratch;
}

PagedAttention::Plan PagedAttention::plan(const Exec& exec, const KvCache& kv, const VisibleSlots& visible,
                                          std::size_t n_rows) const noexcept {
  const std::size_t n_threads = exec.team.size();
  const std::size_t begin = visible.of(0).begin;
  const std::size_t end = visible.of(n_rows - 1).end;
  Plan plan{};
  plan.n_blocks = ceil_div(n_rows, block_tokens()) * n_kv_heads_;
  plan.block_rows = std::min(n_rows, block_tokens()) * group_;
  plan.first_segment = begin / kSegmentSlots;
  plan.n_segments = ceil_div(end, kSegmentSlots) - plan.first_segment;
  const std::size_t work =
      work_of(end - begin, n_rows * n_heads() * (d_k_ + d_v_), kv.bytes_per_slot(), plan.n_blocks);
  const std::size_t chunks = work / Exec::kMinWorkPerChunk;
  // As many for every thread, where blocks are equal.
  const std::size_t wanted =
      chunks < 2 ? 1 : std::min(ceil_div(chunks, n_threads) * n_threads, most_chunks(n_threads));
  plan.by_segment = plan.n_blocks < std::min(wanted, kFewBlocks * n_threads) && plan.n_segments > 1;
  plan.n_chunks = std::min(plan.by_segment ? plan.n_blocks * plan.n_segments : plan.n_blocks, wanted);
  // Heads of one page take the time of a few cache misses each: a thread that knows its next one asks for it.
  if (plan.n_blocks == n_kv_heads_ && end <= kPageSlots) plan.n_chunks = std::min(plan.n_chunks, n_threads);
  return plan;
}

float* PagedAttention::output(const Block& block, std::size_t r, Rows y) const noexcept {
  return y.row(block.first_row + r / group_) + (block.kv_head * group_ + r % group_) * d_v_;
}

void PagedAttention::prepare(const KvCache& kv, const Block& block, const VisibleSlots& visible, ConstRows q,
                             Scratch& scratch) const noexcept {
  for (std::size_t r = 0; r < block.n_rows; ++r) {
    const std::size_t t = block.first_row + r / group_;
    scratch.q[r] = q.row(t) + (block.kv_head * group_ + r % group_) * d_k_;
    scratch.seen[r] = visible.of(t);
    if (kv.type() == KvType::kQ8) kernels_->quantize_query(scratch.q[r], d_k_, scratch.quantized + r);
    if (kv.type() == KvType::kQ4) kernels_->quantize_query_q4(scratch.q[r], d_k_, scratch.quantized + r);
  }
}

void PagedAttention::attend_segment(const KvCache& kv, const Block& block, std::size_t segment,
                                    const Scratch& scratch, float* states) const noexcept {
  const std::size_t stride = state_floats(d_v_);
  const auto attend_page = attend_page_of(*kernels_, kv.type());
  const std::size_t first_page = segment * kSegmentPages;
  const std::size_t end_page = std::min(first_page + kSegmentPages, kv.n_pages_in_use());
  for (std::size_t page = first_page; page < end_page; ++page) {
    const std::size_t first_slot = page * kPageSlots;
    const std::size_t end_slot = first_slot + kPageSlots;
    // Ranges move forward from row to row, so the rows that see this page stand together.
    std::size_t begin = 0;
    while (begin < block.n_rows && scratch.seen[begin].end <= first_slot) ++begin;
    std::size_t end = begin;
    for (; end < block.n_rows && scratch.seen[end].begin < end_slot; ++end) {
      const VisibleSlots::Range seen = scratch.seen[end];
      scratch.spans[end] = {static_cast<std::uint16_t>(std::max(seen.begin, first_slot) - first_slot),
                            static_cast<std::uint16_t>(std::min(seen.end, end_slot) - first_slot)};
    }
    if (begin == end) continue;
    PageTask task;
    task.keys = kv.keys(page, block.kv_head);
    task.values = kv.values(page, block.kv_head);
    task.d_k = d_k_;
    task.d_v = d_v_;
    task.n_slots = std::min(kPageSlots, kv.length() - first_slot);
    task.q = scratch.q + begin;
    task.spans = scratch.spans + begin;
    task.n_rows = end - begin;
    task.scale = scale_;
    if (page + 1 < kv.n_pages_in_use()) task.next_page = kv.part(page + 1, block.kv_head);
    task.states = scratch.page;
    task.quantized_q = scratch.quantized + begin;
    if (kv.type() == KvType::kQ8) {
      task.key_scale = kv.scales(page, block.kv_head);
      task.value_scale = task.key_scale + kPageSlots;
    }
    attend_page(task);
    for (std::size_t r = begin; r < end; ++r) {
      const float* found = scratch.page + (r - begin) * stride;
      float* state = states + r * stride;
      if (page == std::max(first_page, scratch.seen[r].begin / kPageSlots)) {
        std::memcpy(state, found, stride * sizeof(float));
      } else {
        kernels_->merge(state, found, d_v_);
      }
    }
  }
}

void PagedAttention::attend_block(const KvCache& kv, const Block& block, const Scratch& scratch,
                                  Rows y) const noexcept {
  const std::size_t stride = state_floats(d_v_);
  const std::size_t first_segment = scratch.seen[0].begin / kSegmentSlots;
  const std::size_t end_segment = ceil_div(scratch.seen[block.n_rows - 1].end, kSegmentSlots);
  for (std::size_t segment = first_segment; segment < end_segment; ++segment) {
    attend_segment(kv, block, segment, scratch, scratch.segment);
    for (std::size_t r = 0; r < block.n_rows; ++r) {
      const std::size_t own_first = scratch.seen[r].begin / kSegmentSlots;
      if (segment < own_first || segment * kSegmentSlots >= scratch.seen[r].end) continue;
      const float* found = scratch.segment + r * stride;
      if (segment == own_first) {
        std::memcpy(scratch.total + r * stride, found, stride * sizeof(float));
      } else {
        kernels_->merge(scratch.total + r * stride, found, d_v_);
      }
    }
  }
  for (std::size_t r = 0; r < block.n_rows; ++r) {
    kernels_->finish(scratch.total + r * stride, d_v_, output(block, r, y));
  }
}

void PagedAttention::attend_in_one_phase(const Exec& exec, const KvCache& kv, const VisibleSlots& visible,
                                         const Plan& plan, std::byte* memory, ConstRows q, Rows y,
                                         const NewRows* rows) const {
  // Of one block per head a thread takes neighbours: it would ask for the lines beside its rows in vain, and
  // take them from the core that needs them. More blocks are dealt out in turn: later ones see more slots.
  const bool neighbours = plan.n_blocks == n_kv_heads_;
  const bool one_page = kv.n_pages_in_use() == 1;
  const std::size_t step = neighbours ? 1 : plan.n_chunks;
  std::optional<ThreadTeam::Prelude> prelude;
  if (rows && rows->make) {
    if (plan.n_chunks > 1) {
      prelude.emplace(exec.team, rows->make);
    } else {
      rows->make();
    }
  }
  exec.team.run(static_cast<std::uint32_t>(plan.n_chunks), [&](std::uint32_t chunk) {
    Scratch scratch = scratch_at(memory + chunk * scratch_bytes(plan.block_rows), plan.block_rows);
    const std::size_t begin = neighbours ? plan.n_blocks * chunk / plan.n_chunks : chunk;
    const std::size_t end = neighbours ? plan.n_blocks * (chunk + 1) / plan.n_chunks : plan.n_blocks;
    const auto fetch_all = [&] {
      for (std::size_t i = begin; one_page && i < end; i += step) kv.prefetch(0, i);
    };
    if (prelude) prelude->pass(chunk, fetch_all);
    const bool fetched = prelude && chunk > 0;
    for (std::size_t i = begin; i < end; i += step) {
      if (one_page && neighbours && i + 1 < end && !fetched) kv.prefetch(0, i + 1);
      const Block work = block(i, q.n);
      if (rows) rows->kv.write_head(work.kv_head, rows->k, rows->v);
      prepare(kv, work, visible, q, scratch);
      attend_block(kv, work, scratch, y);
    }
  });
}

void PagedAttention::attend_in_two_phases(const Exec& exec, const KvCache& kv, const VisibleSlots& visible,
                                          const Plan& plan, std::byte* memory, ConstRows q, Rows y) const {
  const std::size_t stride = state_floats(d_v_);
  const std::size_t block_floats = plan.block_rows * stride;
  const std::size_t n_items = plan.n_blocks * plan.n_segments;
  auto* const states = exec.ws.take<float>(n_items * block_floats);
  exec.team.run(static_cast<std::uint32_t>(plan.n_chunks), [&](std::uint32_t chunk) {
    Scratch scratch = scratch_at(memory + chunk * scratch_bytes(plan.block_rows), plan.block_rows);
    for (std::size_t i = chunk; i < n_items; i += plan.n_chunks) {
      const Block work = block(i / plan.n_segments, q.n);
      prepare(kv, work, visible, q, scratch);
      attend_segment(kv, work, plan.first_segment + i % plan.n_segments, scratch, states + i * block_floats);
    }
  });
  const std::size_t merge_work = plan.n_segments * stride;
  exec.for_range(plan.n_blocks * plan.block_rows, 1, merge_work, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const Block work = block(i / plan.block_rows, q.n);
      const std::size_t r = i % plan.block_rows;
      if (r >= work.n_rows) continue;
      const VisibleSlots::Range seen = visible.of(work.first_row + r / group_);
      float* const of_row = states + i / plan.block_rows * plan.n_segments * block_floats + r * stride;
      std::size_t s = seen.begin / kSegmentSlots;
      float* const state = of_row + (s - plan.first_segment) * block_floats;
      for (++s; s * kSegmentSlots < seen.end; ++s) {
        kernels_->merge(state, of_row + (s - plan.first_segment) * block_floats, d_v_);
      }
      kernels_->finish(state, d_v_, output(work, r, y));
    }
  });
}

void PagedAttention::attend(const Exec& exec, const KvCache& kv, const VisibleSlots& visible,
                            const Plan& plan, ConstRows q, Rows y, const NewRows* rows) const {
  TERRACE_DCHECK(kv.n_heads() == n_kv_heads_ && kv.d_k() == d_k_ && kv.d_v() == d_v_);
  TERRACE_DCHECK(q.width == n_heads() * d_k_ && y.width == n_heads() * d_v_ && q.n == y.n);
  const Workspace::Scope scope(exec.ws);
  auto* const memory = exec.ws.take<std::byte>(plan.n_chunks * scratch_bytes(plan.block_rows));
  if (plan.by_segment) {
    attend_in_two_phases(exec, kv, visible, plan, memory, q, y);
  } else {
    attend_in_one_phase(exec, kv, visible, plan, memory, q, y, rows);
  }
}

void PagedAttention::run(const Exec& exec, const KvCache& kv, const VisibleSlots& visible, ConstRows q,
                         Rows y) const {
  if (q.n > 0) attend(exec, kv, visible, plan(exec, kv, visible, q.n), q, y, nullptr);
}

void PagedAttention::append_and_run(const Exec& exec, KvCache& kv, ConstRows k, ConstRows v,
                                    const VisibleSlots& visible, ConstRows q, Rows y, TaskRef make) const {
  if (q.n == 0) return;
  const Plan cut = plan(exec, kv, visible, q.n);
  const bool head_is_block = !cut.by_segment && cut.n_blocks == n_kv_heads_;
  if (!head_is_block) {
    if (make) make();
    kv.append(exec, k, v);
    return attend(exec, kv, visible, cut, q, y, nullptr);
  }
  kv.grow(k.n);
  const NewRows rows{kv, k, v, make};
  attend(exec, kv, visible, cut, q, y, &rows);
}

std::size_t PagedAttention::workspace_bytes(std::size_t max_rows, std::size_t max_length,
                                            unsigned n_threads) const noexcept {
  const std::size_t wanted = most_chunks(n_threads);
  const std::size_t n_blocks = std::min(wanted, ceil_div(max_rows, block_tokens()) * n_kv_heads_);
  const std::size_t n_segments = ceil_div(max_length, kSegmentSlots) + 1;
  const std::size_t block_bytes =
      std::min(max_rows, block_tokens()) * group_ * state_floats(d_v_) * sizeof(float);
  return wanted * scratch_bytes(block_tokens() * group_) + whole_lines(n_blocks * n_segments * block_bytes);
}

}  // namespace terrace
