// SPDX-License-Identifier: Apache-2.0
#include "models/byte_tokenizer.h"

#include <limits>

#include "engine/error.h"
#include "models/utf8.h"

namespace terrace {
namespace {

class ByteStream final : public StreamDecoder {
 public:
  explicit ByteStream(const ByteTokenizer& tokenizer) : tokenizer_(tokenizer) {}

  std::string push(TokenId id) override {
    std::string out;
    utf8_.push(tokenizer_.piece(id), out);
    return out;
  }

  std::string finish() override {
    std::string out;
    utf8_.finish(out);
    return out;
  }

 private:
  const ByteTokenizer& tokenizer_;
  Utf8Stream utf8_;
};

}  // namespace

ByteTokenizer::ByteTokenizer(long long offset) : offset_(static_cast<TokenId>(offset)) {
  TERRACE_CHECK(offset >= 0 && offset <= std::numeric_limits<TokenId>::max() - 256, kBadFile,
                "tokenizer: offset must be in 0 .. 2^31 - 257, found " + std::to_string(offset));
}

std::vector<TokenId> ByteTokenizer::encode(std::string_view text) const {
  std::vector<TokenId> ids;
  ids.reserve(text.size());
  for (const char c : text) ids.push_back(offset_ + static_cast<unsigned char>(c));
  return ids;
}

std::string ByteTokenizer::decode(std::span<const TokenId> ids) const {
  std::string text;
  text.reserve(ids.size());
  for (const TokenId id : ids) text += piece(id);
  return text;
}

std::string ByteTokenizer::piece(TokenId id) const {
  TERRACE_CHECK(id >= 0 && id < vocab_size(), kBadToken,
                "token id " + std::to_string(id) + " is outside the byte vocabulary 0 .. " +
                    std::to_string(vocab_size() - 1));
  return id < offset_ ? std::string() : std::string(1, static_cast<char>(id - offset_));
}

std::unique_ptr<StreamDecoder> ByteTokenizer::stream_decoder() const {
  return std::make_unique<ByteStream>(*this);
}

}  // namespace terrace
