// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <span>

#include "attention/position.h"
#include "engine/embedding.h"
#include "models/encoder_input.h"
#include "models/stack.h"
#include "models/token.h"
#include "models/whole_rows.h"

namespace terrace {

/// The layers of a model of any family, joined as Trax's function of the same name joins them
/// (docs/architecture.md, "Names"). Holds views of the weights and no state.
class Network {
 public:
  /// Builds every layer; throws Error{kBadFile} for tensors that do not fit `config`.
  Network(const ModelConfig& config, WeightBinder& binder, Isa isa);

  const ModelConfig& config() const noexcept { return config_; }
  const StateLayout& decoder_state() const noexcept { return decoder_state_; }
  const Stack& decoder() const noexcept { return decoder_; }
  const Stack* encoder() const noexcept { return encoder_ ? &*encoder_ : nullptr; }
  /// Width of the rows that logits() takes.
  std::size_t final_width() const noexcept { return final_norm_.width(); }

  /// Streams for `n` rows in the workspace, wide enough for the decoder.
  Streams take_streams(Exec& exec, std::size_t n) const;
  /// Embedding and positions of decoder tokens into both streams; row 0 has position `first`.
  void embed(Exec& exec, std::span<const TokenId> ids, std::size_t first, Streams& streams) const;
  /// What the final norm sees of the decoder's streams: x, (x1 + x2) / 2, or [x1 | x2].
  void join_streams(const Exec& exec, const Streams& streams, Rows y) const noexcept;
  /// logits = output layer of norm(x).
  void logits(Exec& exec, ConstRows x, Rows logits) const;
  /// The largest logit of one row; logits are not written.
  Largest largest_logit(Exec& exec, ConstRows x) const;

  /// The encoder's output: one sequence, or the two streams of a reversible encoder (else `second` is empty).
  struct Encoded {
    WholeRows first;
    std::optional<WholeRows> second;
    Streams streams() const noexcept { return {first.rows(), second ? second->rows() : first.rows()}; }
  };
  /// Runs the encoder over all rows of `input`, of which those from n_real on are padding. `tick` is told of
  /// every row once per pass over the sequence, and may throw to cancel.
  Encoded encode(Exec& exec, const EncoderInput& input, std::size_t n_real, const RowTick& tick) const;

 private:
  LayerBuilder builder(WeightBinder& binder, StateLayout& state) noexcept;

  const ModelConfig& config_;
  Isa isa_;
  const DenseKernels& kernels_;
  RotaryTables rotary_tables_;
  StateLayout encoder_state_;
  StateLayout decoder_state_;
  Embedding encoder_embedding_;
  Linear encoder_input_;  ///< pre-embedded input
  PositionEncoding encoder_position_;
  std::optional<Stack> encoder_;
  Linear join_;  ///< Terraformer with a non-reversible encoder
  Norm encoder_norm_;
  Embedding embedding_;
  PositionEncoding position_;
  Stack decoder_;
  Norm final_norm_;
  Projection logits_;
};

}  // namespace terrace
