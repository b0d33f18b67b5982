// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>
#include <functional>
#include <vector>

#include "attention/kv_rows.h"
#include "engine/tensor.h"
#include "tests/support/naive_layers.h"

// Attention once more from its definition, in double; and what the attention tests share.

namespace terrace::test {

/// Rows of a float vector, one row after the other.
inline ConstRows rows_of(const std::vector<float>& x, std::size_t width) {
  return {x.data(), x.size() / width, width, width};
}
inline Rows rows_of(std::vector<float>& x, std::size_t width) {
  return {x.data(), x.size() / width, width, width};
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// What is added to the score of query row t with key row s; -infinity hides the key.
using Penalty = std::function<double(std::size_t t, std::size_t s)>;

/// Softmax attention of one head: q [T, d_k], k [S, d_k], v [S, d_v].
Matrix naive_attention_head(const Matrix& q, const Matrix& k, const Matrix& v, double scale,
                            const Penalty& penalty);

/// All heads: q [T, n_heads * d_k], k [S, n_kv_heads * d_k], v [S, n_kv_heads * d_v].
Matrix naive_attention(const Matrix& q, const Matrix& k, const Matrix& v, std::size_t n_heads,
                       std::size_t n_kv_heads, double scale, const Penalty& penalty);

/// What a cache of `type` keeps of rows whose heads are `d_head` wide.
/// Queries as attention over a cache of `type` multiplies them, but for the 14 bits of q8: q4 rounds each 32
/// channels to 8 bits.
std::vector<float> queries_for(KvType type, std::vector<float> rows, std::size_t d_head);
std::vector<float> kept_as(KvType type, std::vector<float> rows, std::size_t d_head);

/// Columns [begin, begin + n) of a matrix.
Matrix columns(const Matrix& x, std::size_t begin, std::size_t n);

/// k_j / sqrt(mean(k_j^2) + 1e-6), row by row, for every head of `d_k` columns.
Matrix naive_length_normalized(const Matrix& k, std::size_t d_k);

/// The f32 value that a bf16 cache keeps of x.
float rounded_to_bf16(float x);

}  // namespace terrace::test
