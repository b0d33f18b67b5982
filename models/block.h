// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "models/attention_layer.h"
#include "models/cross_attention_layer.h"
#include "models/feed_forward_layer.h"
#include "sparse/depth_router.h"

namespace terrace {

/// An attention sublayer with the norm before it.
struct AttentionSublayer {
  Norm norm;
  AttentionLayer attention;
};

/// The two residual streams of a reversible model; a plain model has x1 only (x2.data null).
struct Streams {
  Rows x1;
  Rows x2;

  bool reversible() const noexcept { return x2.data != nullptr; }
  void swap() noexcept { std::swap(x1, x2); }
  /// The stream that sublayers read.
  ConstRows input() const noexcept { return reversible() ? x2 : x1; }
};

/// One block of a stack:
///   plain       x += A(norm x);  [x += C(norm x)];  x += F(x)               (C: cross attention)
///   parallel    h = norm x;  x += A(h) + F(h)
///   reversible  n_attention times { x1 += A(norm x2); swap };  x1 += F(x2);  swap
///               (an encoder's last swap is optional)
///   routed      x += r (B(x) - x) for the tokens that a DepthRouter sends through it, where B is the plain
///               or parallel form; the others keep x and are absent from the block's caches and time taps
/// F has its norm inside. Sources: trax/models/research/configurable_transformer.py and terraformer.py;
/// Wang & Komatsuzaki 2021 for the parallel form; Raposo et al. 2024 for the routed one.
class Block {
 public:
  Block(const LayerBuilder& build, const std::string& name, const StackConfig& config, std::uint32_t index,
        std::size_t d_model, std::size_t d_ff, bool causal);

  const FeedForwardLayer& ff() const noexcept { return ff_; }
  bool steps_equal_evaluation() const noexcept;
  std::size_t length_multiple() const noexcept;
  /// Passes over the rows that evaluate() makes, as told to its tick.
  std::size_t encode_passes() const noexcept;

  /// The next rows of a causal sequence; `width` feed-forward units are used. `cross` is null without cross
  /// attention.
  void forward(StepContext& context, Streams& streams, std::size_t width, const KvCache* cross) const;

  /// A whole sequence. `state` is a fresh state for sublayers that go step by step; `cross` as in forward().
  void evaluate(EncodeContext& context, Streams& streams, StackState& state, const KvCache* cross) const;

  /// Keys and values of cross attention for the encoder's output `rows`, appended to `cache`.
  void project_encoder(Exec& exec, ConstRows rows, KvCache& cache) const {
    cross_->project_encoder(exec, rows, cache);
  }
  /// Index of the tokens that run the block (StackState::route), or kEveryToken.
  std::size_t route() const noexcept { return route_; }
  /// The cross attention, which knows the shape of its cache; nullptr if there is none.
  const CrossAttentionLayer* cross() const noexcept { return cross_ ? &*cross_ : nullptr; }

 private:
  void forward_all(StepContext& context, Streams& streams, std::size_t width, const KvCache* cross) const;
  void evaluate_all(EncodeContext& context, Streams& streams, StackState& state, const KvCache* cross) const;
  void forward_routed(StepContext& context, Rows x, std::size_t width) const;
  void evaluate_routed(EncodeContext& context, Rows x, StackState& state) const;
  void forward_parallel(StepContext& context, Rows x, std::size_t width) const;
  static void attention_whole(EncodeContext& context, const AttentionSublayer& sublayer, Streams& streams,
                              StackState& state);

  bool parallel_;
  bool last_swap_;
  StateSlot recurrent_;  ///< what its layers reserved
  std::vector<AttentionSublayer> attention_;
  Norm cross_norm_;
  std::optional<CrossAttentionLayer> cross_;
  FeedForwardLayer ff_;
  std::optional<DepthRouter> router_;
  std::size_t route_ = kEveryToken;
};

}  // namespace terrace
