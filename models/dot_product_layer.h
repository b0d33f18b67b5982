// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>
#include <string>

#include "attention/causal_attention.h"
#include "attention/full_attention.h"
#include "attention/rotary.h"
#include "engine/depthwise_conv.h"
#include "models/encode_context.h"
#include "models/layer_builder.h"
#include "sparse/projection.h"

namespace terrace {

/// Attention of kind `dot_product`: any projection for q, k, v and out around the dot-product core;
/// multi-head, grouped-query or multi-query; optional depthwise convolutions and rotary positions. Source:
/// Trax `CausalAttention`, `Attention` and the causal variants in trax/layers/research/sparsity.py.
class DotProductLayer {
 public:
  /// `causal` false builds the bidirectional form of an encoder, which keeps no state.
  DotProductLayer(const LayerBuilder& build, const std::string& name, const AttentionConfig& config,
                  std::size_t d_model, bool causal);

  /// The next rows of a causal sequence: y = attention(x).
  void forward(StepContext& context, ConstRows x, Rows y) const;

  /// All rows of a bidirectional sequence: sum += attention(norm(x)). x and sum may be the same rows.
  void encode(EncodeContext& context, const Norm& norm, ConstRows x, Rows sum) const;
  static constexpr std::size_t kEncodePasses = 2;  ///< over the rows, as told to context.tick

 private:
  Projection q_, k_, v_, out_;
  std::array<DepthwiseConv, 3> dconv_;
  std::shared_ptr<const Rotary> rotary_;
  CausalAttention causal_;
  FullAttention full_;
  std::size_t kv_index_ = 0;
};

}  // namespace terrace
