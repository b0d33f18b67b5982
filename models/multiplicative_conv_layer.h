// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "attention/causal_attention.h"
#include "models/layer_builder.h"
#include "sparse/sparse_qkv.h"

namespace terrace {

/// The paper's sparse attention layer: multiplicative + convolutional q, k, v around the causal core, and by
/// default no output projection at all. Source: Jaszczur et al. 2021, sec. 3.2; Trax
/// `MultiplicativeConvCausalAttention`.
class MultiplicativeConvLayer {
 public:
  MultiplicativeConvLayer(const LayerBuilder& build, const std::string& name, const AttentionConfig& config,
                          std::size_t d_model);

  /// The next rows of a causal sequence: y = attention(x).
  void forward(StepContext& context, ConstRows x, Rows y) const;

 private:
  static SparseQkv build_qkv(const LayerBuilder& build, const std::string& name,
                             const AttentionConfig& config, std::size_t d_model);

  SparseQkv qkv_;
  CausalAttention causal_;
  std::optional<SparseAttentionOutput> out_;
  std::size_t kv_index_ = 0;
};

}  // namespace terrace
