// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "models/block.h"

namespace terrace {

/// The blocks of an encoder or decoder with the steps between them: concatenation of the streams and
/// forgetting layers of reversible families. Source: trax/models/research/terraformer.py.
class Stack {
 public:
  /// `name` is "encoder" or "decoder"; an encoder's attention is bidirectional.
  Stack(const LayerBuilder& build, const std::string& name, const StackConfig& config, bool causal);

  std::span<const Block> blocks() const noexcept { return blocks_; }
  std::size_t max_width() const noexcept { return max_width_; }  ///< of the streams along the depth
  bool steps_equal_evaluation() const noexcept;
  /// Sequences of evaluate() must be a multiple of this long.
  std::size_t length_multiple() const noexcept;
  /// Passes over the rows that evaluate() makes, as told to its tick.
  std::size_t encode_passes() const noexcept;

  /// The next rows of a causal sequence, in place; the streams need a stride of at least max_width(). On
  /// return streams.x1 and x2 are the final streams and their width. `widths` has one entry per block;
  /// `cross` one cache per block, or is empty.
  void forward(StepContext& context, Streams& streams, std::span<const std::uint32_t> widths,
               std::span<const KvCache> cross) const;

  /// A whole sequence with all units, in place, in the evaluation form of every layer. `state` is fresh;
  /// `cross` as in forward().
  void evaluate(EncodeContext& context, Streams& streams, StackState& state,
                std::span<const KvCache> cross = {}) const;

 private:
  struct Step {
    StackStep::Kind kind;
    std::size_t index;  ///< of the block, or of the forgetting layer
  };
  static void forget(Exec& exec, const Linear& dense, Streams& streams);

  std::vector<Block> blocks_;
  std::vector<Linear> forget_;  ///< empty maps where forget_dense is false
  std::vector<Step> steps_;
  std::size_t max_width_ = 0;
};

/// x = (x1 + x2) / 2 for rows of two streams.
void mean_of_streams(const Exec& exec, const Streams& streams, Rows x) noexcept;

}  // namespace terrace
