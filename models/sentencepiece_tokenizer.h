// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "models/tokenizer.h"

namespace terrace {

/// SentencePiece models (unigram, BPE, word, char), by libsentencepiece.
///
/// encode and decode are the library's Encode and Decode without extra options. Malformed bytes of a text
/// become U+FFFD one by one; byte-fallback pieces that form no character decode to U+FFFD one by one.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  /// `model`: the bytes of a .model file; they are copied. Throws Error{kBadFile}; prints nothing.
  explicit SentencePieceTokenizer(std::string_view model);
  ~SentencePieceTokenizer() override;

  std::vector<TokenId> encode(std::string_view text) const override;
  std::string decode(std::span<const TokenId> ids) const override;
  std::string piece(TokenId id) const override;
  TokenId vocab_size() const noexcept override;
  std::unique_ptr<StreamDecoder> stream_decoder() const override;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace terrace
