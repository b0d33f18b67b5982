// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "models/tokenizer.h"

namespace terrace {

/// One token per byte: id = byte + offset. Ids below the offset (padding, end of text) stand for no text.
/// encode and decode are exact inverses for any bytes; the stream writes U+FFFD for bytes that are not UTF-8.
class ByteTokenizer final : public Tokenizer {
 public:
  /// Throws Error{kBadFile} unless 0 <= offset and all ids fit into TokenId.
  explicit ByteTokenizer(long long offset);

  std::vector<TokenId> encode(std::string_view text) const override;
  std::string decode(std::span<const TokenId> ids) const override;
  std::string piece(TokenId id) const override;
  TokenId vocab_size() const noexcept override { return offset_ + 256; }
  std::unique_ptr<StreamDecoder> stream_decoder() const override;

 private:
  TokenId offset_;
};

}  // namespace terrace
