// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/kernels/attention_kernels.h"

namespace terrace {

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
};

/// Queries that one call handles at most. Their states stay in the L2 cache while the keys are packed into
/// pages, whose cost (one scattered store per element) is then a few percent.
inline constexpr std::size_t kChunkedQueries = 256;

/// Floats of scratch memory that attend_entries needs.
std::size_t chunked_scratch_floats(std::size_t d_k, std::size_t d_v) noexcept;

/// states[i] = softmax state of entry first + i, for n <= kChunkedQueries entries of one chunk. Keys are
/// taken in list order and merged page by page.
void attend_entries(const AttentionKernels& kernels, const ChunkedHead& head, std::size_t first,
                    std::size_t n, float* scratch, float* states) noexcept;

}  // namespace terrace
