// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "attention/self_attention.h"
#include "models/encode_context.h"
#include "models/layer_builder.h"

namespace terrace {

/// Attention of kind `self`: dense q, k (absent with share_qk), v around Trax's chunked SelfAttention, and an
/// output map that sums over heads without bias. Source: Trax `SelfAttention`.
class SelfAttentionLayer {
 public:
  SelfAttentionLayer(const LayerBuilder& build, const std::string& name, const AttentionConfig& config,
                     std::size_t d_model, bool causal);

  /// The next rows of a causal sequence: y = attention(x).
  void forward(StepContext& context, ConstRows x, Rows y) const;
  /// A whole sequence: sum += attention(norm(x)). x and sum may be the same rows.
  void encode(EncodeContext& context, const Norm& norm, ConstRows x, Rows sum) const;
  static constexpr std::size_t kEncodePasses = 3;  ///< over the rows, as told to context.tick

  /// Rows per sequence must be a multiple of this in encode().
  std::size_t length_multiple() const noexcept;
  /// Whether forward() over a sequence gives what encode() gives.
  bool steps_equal_evaluation() const noexcept { return steps_equal_evaluation_; }

 private:
  bool causal_;
  bool steps_equal_evaluation_;
  Linear q_, k_, v_, out_;
  SelfAttention core_;
  std::size_t kv_index_ = 0;
};

}  // namespace terrace
