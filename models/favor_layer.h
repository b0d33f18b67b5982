// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "attention/favor.h"
#include "models/encode_context.h"
#include "models/layer_builder.h"
#include "sparse/projection.h"

namespace terrace {

/// Attention of kind `favor`: linear attention with running sums when causal, over all rows in an encoder.
/// Source: Trax `Favor`, `CausalFavor`.
class FavorLayer {
 public:
  FavorLayer(const LayerBuilder& build, const std::string& name, const AttentionConfig& config,
             std::size_t d_model, bool causal);

  /// The next rows of a causal sequence: y = attention(x).
  void forward(StepContext& context, ConstRows x, Rows y) const;
  /// A whole bidirectional sequence: sum += attention(norm(x)). x and sum may be the same rows.
  void encode(EncodeContext& context, const Norm& norm, ConstRows x, Rows sum) const;
  static constexpr std::size_t kEncodePasses = 3;  ///< over the rows, as told to context.tick

 private:
  Projection q_, k_, v_, out_;
  FavorAttention core_;
  StateSlot sums_;
};

}  // namespace terrace
