// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <variant>
#include <vector>

#include "engine/tensor.h"
#include "models/config.h"
#include "models/token.h"

namespace terrace {

/// What goes into an encoder: token ids, or rows of width `d_input` that are already embedded.
using EncoderInput = std::variant<std::span<const TokenId>, ConstRows>;

/// Tokens or rows in it.
std::size_t length_of(const EncoderInput& input) noexcept;

/// A checked encoder input, with the padding at its end that chunked layers need.
class Document {
 public:
  /// What becomes of padding ids at the end of the input. They make a difference only where layers cut the
  /// sequence into chunks.
  enum class Padding { kDrop, kKeep };

  /// Copies `input` and pads it to a multiple of `multiple` rows. Throws Error{kBadToken} for ids outside the
  /// vocabulary and for padding before real tokens, Error{kBadArgument} for an empty document or one of the
  /// other kind.
  Document(const ModelConfig& config, const EncoderInput& input, std::size_t multiple, Padding padding);

  std::size_t n_real() const noexcept { return n_real_; }  ///< rows before the padding
  EncoderInput padded() const noexcept;

 private:
  void take_tokens(const ModelConfig& config, std::span<const TokenId> ids);
  void take_rows(const ModelConfig& config, ConstRows rows);

  std::vector<TokenId> ids_;
  std::vector<float> rows_;
  std::size_t width_ = 0;  ///< of rows_; 0 for tokens
  std::size_t n_real_ = 0;
};

}  // namespace terrace
