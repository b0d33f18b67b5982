// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unordered_set>

#include "models/tokenizer.h"

namespace terrace {

/// The invertible subword vocabulary of Tensor2Tensor and Trax (`.subword` files, SubwordTextEncoder).
///
/// encode: the text is cut into maximal runs of alphanumeric (Unicode categories L* and N*) and other
/// characters; a run that is a single space is dropped unless it is the first or the last. Each run is
/// escaped ('\' -> "\\", '_' -> "\u", newline and characters the vocabulary does not know -> "\<decimal>;"),
/// ended by '_', and spelled by the longest pieces from left to right. decode: the reverse; a space is put
/// between two runs that both begin with an alphanumeric character. Source: trax/data/text_encoder.py.
class SubwordTokenizer final : public Tokenizer {
 public:
  /// `file`: the bytes of a `.subword` file, one piece per line, id = line number + n_reserved_ids.
  /// Throws Error{kBadFile} for an empty file, text that is not UTF-8, or ids that do not fit into TokenId.
  SubwordTokenizer(std::string_view file, long long n_reserved_ids);

  /// Throws Error{kBadFile} if the vocabulary has no piece for a character that its own escapes need.
  std::vector<TokenId> encode(std::string_view text) const override;
  /// Ids outside the vocabulary and reserved ids stand for nothing.
  std::string decode(std::span<const TokenId> ids) const override;
  std::string piece(TokenId id) const override;
  TokenId vocab_size() const noexcept override;
  std::unique_ptr<StreamDecoder> stream_decoder() const override;

 private:
  struct Entry {
    std::string_view text;  // into pieces_
    TokenId id;
  };
  class Stream;

  void spell(std::string_view escaped, std::vector<TokenId>& ids) const;
  /// The piece of `id`, empty for ids that stand for nothing.
  std::string_view text_of(TokenId id) const noexcept;

  TokenId n_reserved_ids_;
  std::vector<std::string> pieces_;
  std::vector<Entry> sorted_;              // not empty pieces by bytes, each text once
  std::unordered_set<char32_t> alphabet_;  // characters that need no escape
};

}  // namespace terrace
