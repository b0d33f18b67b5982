// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "attention/kernels/attention_kernels.h"
#include "engine/ceil_div.h"

namespace terrace {

/// Queries that one call handles at most. Their states stay in the L2 cache while the keys are packed into
/// pages, whose cost (one scattered store per element) is then a few percent.
inline constexpr std::size_t kChunkedQueries = 256;

/// Attention of one head inside chunks of a list of rows: what the whole-sequence forms of SelfAttention (the
/// list is the sequence) and LSH attention (the list is sorted by bucket) have in common.
///
/// Entry e of the list stands for row order[e], whose position is its row number. Queries of chunk u see the
/// entries of chunks u - before .. u + after modulo the number of chunks, with the additive penalties of
/// SelfAttention. Rows from n_real on are padding.
struct ChunkedHead {
  struct RowsOfHead {
    const float* data = nullptr;
    std::size_t stride = 0;
    const float* row(std::size_t i) const noexcept { return data + i * stride; }
  };

  std::size_t d_k = 0, d_v = 0;
  RowsOfHead q, k, v;
  const float* key_factor = nullptr;  ///< multiplies key row i; null: 1
  const std::uint32_t* order = nullptr;
  std::size_t n_entries = 0;
  std::size_t chunk_len = 0;  ///< divides n_entries
  std::size_t n_chunks_before = 0, n_chunks_after = 0;
  std::size_t n_real = 0;
  float scale = 1;
  bool causal = false;
  bool share_qk = false;

  /// The list in blocks of up to kChunkedQueries queries of one chunk.
  std::size_t n_blocks() const noexcept { return n_entries / chunk_len * blocks_per_chunk(); }
  struct Block {
    std::size_t first;  ///< entry
    std::size_t n;
  };
  Block block(std::size_t i) const noexcept {
    const std::size_t in_chunk = i % blocks_per_chunk() * kChunkedQueries;
    return {i / blocks_per_chunk() * chunk_len + in_chunk, std::min(kChunkedQueries, chunk_len - in_chunk)};
  }

 private:
  std::size_t blocks_per_chunk() const noexcept { return ceil_div(chunk_len, kChunkedQueries); }
};

/// Floats of scratch memory that attend_entries needs.
std::size_t chunked_scratch_floats(std::size_t d_k, std::size_t d_v) noexcept;

/// states[i] = softmax state of entry block.first + i. Keys are taken in list order and merged page by page.
void attend_entries(const AttentionKernels& kernels, const ChunkedHead& head, const ChunkedHead::Block& block,
                    float* scratch, float* states) noexcept;

}  // namespace terrace
