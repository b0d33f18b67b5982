// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <variant>

#include "models/dot_product_layer.h"
#include "models/favor_layer.h"
#include "models/lsh_layer.h"
#include "models/multiplicative_conv_layer.h"
#include "models/self_attention_layer.h"

namespace terrace {

/// An attention sublayer of any kind (docs/model-file.md, "Attention"): maps, core and output, without norm
/// and residual.
class AttentionLayer {
 public:
  /// `name` is `X.blocks.<i>.attention.<j>`.
  AttentionLayer(const LayerBuilder& build, const std::string& name, const AttentionConfig& config,
                 std::size_t d_model, bool causal);

  /// Whether a row sees only itself and the rows before it.
  bool causal() const noexcept { return causal_; }

  /// The next rows of a causal sequence: y = attention(x), with x already normalised.
  void forward(StepContext& context, ConstRows x, Rows y) const;

  /// A whole sequence: sum += attention(norm(x)). For encoders, and for causal layers whose evaluation form
  /// differs from forward() (steps_equal_evaluation() false).
  void encode(EncodeContext& context, const Norm& norm, ConstRows x, Rows sum) const;
  /// Passes over the rows that encode() makes, as told to its tick.
  std::size_t encode_passes() const noexcept { return encode_passes_; }

  bool steps_equal_evaluation() const noexcept;
  /// Sequences of encode() must be a multiple of this long.
  std::size_t length_multiple() const noexcept;

 private:
  using Layer =
      std::variant<DotProductLayer, MultiplicativeConvLayer, SelfAttentionLayer, LshLayer, FavorLayer>;
  static Layer build_layer(const LayerBuilder& build, const std::string& name, const AttentionConfig& config,
                           std::size_t d_model, bool causal);
  bool causal_;
  Layer layer_;
  std::size_t encode_passes_;
};

}  // namespace terrace
