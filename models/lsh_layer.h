// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "attention/causal_attention.h"
#include "attention/full_attention.h"
#include "attention/lsh_attention.h"
#include "attention/rotary.h"
#include "models/encode_context.h"
#include "models/layer_builder.h"
#include "sparse/sparse_qkv.h"

namespace terrace {

/// Shared-QK attention by locality-sensitive hashing with the maps around it: kinds `lsh`, `pure_lsh` and
/// `mixed_lsh`.
///   qk = map of x, or the mean of a q and a k map
///   v  = map of x
///   y  = out(attended), or attended where there is no out
/// `mixed_lsh` uses plain causal attention with q = k = qk (neither normalised nor self-excluding) for
/// sequences of at most `std_length` rows; row by row, while the row's position is below std_length.
/// Source: Trax `LSHSelfAttention`, `PureLSHSelfAttentionWrapper`, `MixedLSHSelfAttention`.
class LshLayer {
 public:
  LshLayer(const LayerBuilder& build, const std::string& name, const AttentionConfig& config,
           std::size_t d_model, bool causal);

  /// The next rows of a causal sequence by Trax's one-token rule: y = attention(x).
  void forward(StepContext& context, ConstRows x, Rows y) const;
  /// A whole sequence (sort and chunk): sum += attention(norm(x)). x and sum may be the same rows.
  void encode(EncodeContext& context, const Norm& norm, ConstRows x, Rows sum) const;
  static constexpr std::size_t kEncodePasses = 3;  ///< over the rows, as told to context.tick

  /// Rows per sequence must be a multiple of this in encode().
  std::size_t length_multiple() const noexcept;

 private:
  /// The maps in front: dense ones, or the paper's sparse ones (multiplicative layer and convolutions).
  struct Maps {
    Linear q, k, v;  ///< k empty: q is the shared map
    std::optional<SparseQkv> sparse;
    Linear out;  ///< may be empty
  };
  static Maps build_maps(const LayerBuilder& build, const std::string& name, const AttentionConfig& config,
                         std::size_t d_model, std::size_t d_qk, std::size_t d_value);

  void project(Exec& exec, ConstRows x, RowPositions positions, const RecurrentBlock& recurrent, Rows qk,
               Rows v) const;
  void encode_standard(EncodeContext& context, ConstRows qk, ConstRows v, Rows attended) const;

  bool causal_;
  std::size_t d_qk_;
  std::size_t d_value_;
  Maps maps_;
  std::shared_ptr<const Rotary> rotary_;
  LshAttention core_;
  std::size_t std_length_ = 0;
  CausalAttention standard_;          ///< mixed_lsh, causal
  FullAttention standard_full_;       ///< mixed_lsh, encoder
  std::size_t recurrent_floats_ = 0;  ///< of the maps, for whole sequences
  std::size_t lsh_index_ = 0;
  std::size_t kv_index_ = 0;
};

}  // namespace terrace
