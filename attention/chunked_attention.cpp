// SPDX-License-Identifier: Apache-2.0
#include "attention/chunked_attention.h"

#include <algorithm>
#include <cstring>

#include "attention/shared_qk.h"

namespace terrace {
namespace {

/// Scratch memory of one call; all parts are whole cache lines.
struct Scratch {
  float* keys;            // one page in the layout of kv_page.h
  float* values;          // the same
  float* key_position;    // [kPageSlots]
  float* query_position;  // [kChunkedQueries]
  const float** q;        // [kChunkedQueries]
  PageSpan* spans;        // [kChunkedQueries]
  float* states;          // [kChunkedQueries] of the page at hand

  Scratch(float* memory, std::size_t d_k, std::size_t d_v) noexcept {
    const auto take = [&memory](std::size_t n_floats) {
      float* at = memory;
      memory += padded_width(n_floats);
      return at;
    };
    keys = take(kPageSlots * d_k);
    values = take(kPageSlots * padded_width(d_v));
    key_position = take(kPageSlots);
    query_position = take(kChunkedQueries);
    q = reinterpret_cast<const float**>(take(kChunkedQueries * sizeof(const float*) / sizeof(float)));
    spans = reinterpret_cast<PageSpan*>(take(kChunkedQueries * sizeof(PageSpan) / sizeof(float)));
    states = take(kChunkedQueries * state_floats(d_v));
  }
};

/// Copies the key and value of a row to `slot` of the page.
void pack(const ChunkedHead& head, std::size_t row, std::size_t slot, const Scratch& scratch) noexcept {
  const float* key = head.k.row(row);
  const float factor = head.key_factor ? head.key_factor[row] : 1.0F;
  float* to = scratch.keys + key_index(slot, 0, head.d_k);
  for (std::size_t d = 0; d < head.d_k; ++d) to[d * kKeyTile] = key[d] * factor;
  float* value = scratch.values + slot * padded_width(head.d_v);
  std::memcpy(value, head.v.row(row), head.d_v * sizeof(float));
  std::fill(value + head.d_v, value + padded_width(head.d_v), 0.0F);
  // Trax marks a padding key by a negated position and then adds 1, so that one at position 0 or 1 passes as
  // real.
  const auto position = static_cast<float>(row);
  scratch.key_position[slot] = (row < head.n_real ? position : -position) + 1.0F;
}

}  // namespace

std::size_t chunked_scratch_floats(std::size_t d_k, std::size_t d_v) noexcept {
  return kPageSlots * (d_k + padded_width(d_v) + 1) +
         kChunkedQueries *
             (1 + (sizeof(const float*) + sizeof(PageSpan)) / sizeof(float) + state_floats(d_v));
}

void attend_entries(const AttentionKernels& kernels, const ChunkedHead& head, const ChunkedHead::Block& block,
                    float* scratch_memory, float* states) noexcept {
  const auto [first, n] = block;
  const Scratch scratch(scratch_memory, head.d_k, head.d_v);
  const std::size_t n_chunks = head.n_entries / head.chunk_len;
  const std::size_t chunk = first / head.chunk_len;
  const std::size_t n_seen = (1 + head.n_chunks_before + head.n_chunks_after) * head.chunk_len;
  // First chunk seen, in 0..n_chunks-1 even where it lies before the start.
  const std::size_t seen = (chunk + n_chunks - head.n_chunks_before % n_chunks) % n_chunks;

  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t row = head.order[first + i];
    scratch.q[i] = head.q.row(row);
    scratch.query_position[i] = static_cast<float>(row) + 1.0F;
  }
  PageTask task;
  task.keys = scratch.keys;
  task.values = scratch.values;
  task.d_k = head.d_k;
  task.d_v = head.d_v;
  task.q = scratch.q;
  task.spans = scratch.spans;
  task.n_rows = n;
  task.scale = head.scale;
  task.query_position = scratch.query_position;
  task.key_position = scratch.key_position;
  task.future_penalty = head.causal ? kHiddenPenalty : 0.0F;
  task.self_penalty = head.share_qk ? kSelfPenalty : 0.0F;
  task.pad_penalty = kHiddenPenalty;

  for (std::size_t begin = 0; begin < n_seen; begin += kPageSlots) {
    const std::size_t n_keys = std::min(kPageSlots, n_seen - begin);
    for (std::size_t slot = 0; slot < n_keys; ++slot) {
      const std::size_t entry = (seen * head.chunk_len + begin + slot) % head.n_entries;
      pack(head, head.order[entry], slot, scratch);
    }
    // Slots after the last key keep the positions of the page before: they are outside every span.
    std::fill_n(scratch.spans, n, PageSpan{0, static_cast<std::uint16_t>(n_keys)});
    task.states = begin == 0 ? states : scratch.states;
    kernels.attend_page_f32(task);
    if (begin == 0) continue;
    const std::size_t stride = state_floats(head.d_v);
    for (std::size_t i = 0; i < n; ++i)
      kernels.merge(states + i * stride, scratch.states + i * stride, head.d_v);
  }
}

}  // namespace terrace
