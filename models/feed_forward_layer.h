// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <variant>

#include "engine/feed_forward.h"
#include "engine/norm.h"
#include "engine/sru.h"
#include "models/layer_builder.h"
#include "sparse/expert_ffn.h"
#include "sparse/sparse_ffn.h"

namespace terrace {

/// The feed-forward part of a block with its norm, of any kind, and the SRU path beside it:
///   y = FF(norm x) + SRU(x)
class FeedForwardLayer {
 public:
  /// `name` is `X.blocks.<i>.ff`. Without `has_norm` (parallel blocks) the caller passes normalised rows.
  FeedForwardLayer(const LayerBuilder& build, const std::string& name, const FeedForwardConfig& config,
                   std::size_t d_model, std::size_t d_ff, bool center, bool has_norm);

  std::size_t d_model() const noexcept { return d_model_; }
  std::size_t d_ff() const noexcept { return d_ff_; }
  /// The units that a token uses unless a session says otherwise: d_ff, or those of the active experts.
  std::size_t default_width() const noexcept { return default_width_; }
  /// y = layer(x) with the first `width` units, or with as many experts as have `width` units in all.
  /// `recurrent` is the session's block.
  void forward(Exec& exec, ConstRows x, const RecurrentBlock& recurrent, std::size_t width, Rows y) const;

  /// Whether the leader takes one row through an SRU path of `sru_bytes` while others multiply with a
  /// controller's first map of `down_bytes`: the longer one decides how long that takes (c4-medium q8, two
  /// threads: a token takes 2 % less).
  static constexpr bool sru_beside_controller(std::size_t sru_bytes, std::size_t down_bytes) noexcept {
    return sru_bytes <= down_bytes;
  }

 private:
  using Map = std::variant<FeedForward, SparseFfn, ExpertFfn>;
  static Map build_map(const LayerBuilder& build, const std::string& name, const FeedForwardConfig& config,
                       std::size_t d_model, std::size_t d_ff);

  /// The part of `h` = norm x and, beside it, the SRU path of x, both one row.
  void forward_beside(Exec& exec, const SparseFfn& sparse, ConstRows h, ConstRows x,
                      const RecurrentBlock& recurrent, std::size_t width, Rows y) const;

  std::size_t d_model_;
  std::size_t d_ff_;
  bool any_width_;
  std::size_t default_width_;
  Norm norm_;  ///< empty in parallel blocks
  Map map_;
  std::optional<SruBranch> sru_;
};

}  // namespace terrace
