// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/error.h"
#include "models/token.h"

namespace terrace {

/// Turns ids into text one at a time, for streaming.
///
/// For any ids, everything push() returned plus what finish() returns equals
/// to_valid_utf8(Tokenizer::decode(ids)), and every returned string is valid UTF-8 by itself: an unfinished
/// character, escape or leading space is held back until later ids decide it. Must not outlive its Tokenizer.
/// Not thread-safe.
class StreamDecoder {
 public:
  virtual ~StreamDecoder() = default;

  /// The text that `id` makes certain; often empty. Throws Error{kBadToken} like Tokenizer::decode, changing
  /// nothing.
  virtual std::string push(TokenId id) = 0;

  /// What was held back; the decoder then starts anew.
  virtual std::string finish() = 0;
};

/// Text to ids and back. Immutable after construction: any number of threads may use one object.
///
/// Text is UTF-8. Ill-formed bytes are no error: the byte tokenizer keeps them as they are, the others read
/// each such byte as U+FFFD.
class Tokenizer {
 public:
  Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
  virtual ~Tokenizer() = default;

  /// Ids of `text`; adds no begin or end token. Throws Error{kUnsupported} where there is no tokenizer.
  virtual std::vector<TokenId> encode(std::string_view text) const = 0;

  /// Text of `ids`. Throws Error{kBadToken} for an id outside [0, vocab_size), except the subword tokenizer,
  /// where such an id stands for nothing (as in Trax).
  virtual std::string decode(std::span<const TokenId> ids) const = 0;

  /// The entry of `id` as its vocabulary spells it ("▁the", "the_", one byte), for listings; empty for ids
  /// that never come from text. Throws Error{kBadToken} outside [0, vocab_size).
  virtual std::string piece(TokenId id) const = 0;

  /// Ids are 0 .. vocab_size-1; 0 where there is no tokenizer.
  virtual TokenId vocab_size() const noexcept = 0;

  virtual std::unique_ptr<StreamDecoder> stream_decoder() const = 0;
};

/// Builds the tokenizer of a model file.
///
/// `config_json`: the `tokenizer` metadata, {"kind": "none" | "bytes" | "sentencepiece" | "subword", ...},
/// see docs/model-file.md. `data`: the bytes of tensor `tokenizer.data`, copied as far as needed; ignored for
/// the first two. Throws Error{kBadFile} for malformed JSON or data, Error{kUnsupported} for a kind this
/// build does not know. Kind "none" gives an object whose functions throw Error{kUnsupported}, so that models
/// without a tokenizer load.
std::unique_ptr<Tokenizer> make_tokenizer(std::string_view config_json, std::span<const std::byte> data);

/// Throws Error{code} where a tokenizer has ids that a model of `vocab_size` ids does not know.
void check_vocabulary(const Tokenizer& tokenizer, std::uint32_t vocab_size, ErrorCode code);

}  // namespace terrace
