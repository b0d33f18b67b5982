// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "attention/full_attention.h"
#include "models/layer_builder.h"
#include "models/session_state.h"
#include "sparse/sparse_qkv.h"

namespace terrace {

/// Attention from decoder rows to the encoder's output: dense k and v, computed once per document; q and out
/// dense, or multiplicative + convolutional, or (out) absent. Source: Trax `AttentionQKV`.
class CrossAttentionLayer {
 public:
  CrossAttentionLayer(const LayerBuilder& build, const std::string& name, const CrossAttentionConfig& config,
                      std::size_t d_model);

  KvSpec kv_spec() const noexcept { return {full_.n_heads(), full_.d_k(), full_.d_k()}; }

  /// Appends the keys and values of the encoder's rows.
  void project_encoder(Exec& exec, ConstRows rows, KvCache& cache) const;
  /// y = attention(x) for the next decoder rows. `recurrent` holds the tails of the sparse parts.
  void forward(Exec& exec, ConstRows x, const RecurrentBlock& recurrent, const KvCache& cache, Rows y) const;

 private:
  Linear q_, k_, v_, out_;
  std::optional<SparseAttentionOutput> sparse_q_;
  std::optional<SparseAttentionOutput> sparse_out_;
  FullAttention full_;
};

}  // namespace terrace
