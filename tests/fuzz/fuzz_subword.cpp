// SPDX-License-Identifier: Apache-2.0
// Any bytes as a `.subword` vocabulary, and any bytes as text: errors are Error, what encodes decodes to the
// same text, and streaming gives what decoding at once gives. Input: the text, 0xFF, the vocabulary.
//   cmake --preset fuzz && cmake --build --preset fuzz --target fuzz_subword
//   build/fuzz/tests/fuzz_subword -max_total_time=60 CORPUS
//                          (tests/golden/subword.json holds a vocabulary to start from)
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <numeric>

#include "engine/error.h"
#include "models/subword_tokenizer.h"
#include "models/utf8.h"

using namespace terrace;

namespace {

void require(bool holds) {
  if (!holds) std::abort();  // libFuzzer reports it with the input
}

void check_stream(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  const auto stream = tokenizer.stream_decoder();
  std::string text;
  for (const TokenId id : ids) text += stream->push(id);
  require(text + stream->finish() == tokenizer.decode(ids));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t cut = std::min(input.find('\xFF'), size);
  const std::string_view text = input.substr(0, cut);
  try {
    const SubwordTokenizer tokenizer(input.substr(std::min(cut + 1, size)), 3);
    std::vector<TokenId> all(static_cast<std::size_t>(tokenizer.vocab_size()));
    std::iota(all.begin(), all.end(), 0);
    check_stream(tokenizer, all);
    const std::vector<TokenId> ids = tokenizer.encode(text);
    check_stream(tokenizer, ids);
    require(tokenizer.decode(ids) == to_valid_utf8(text));
  } catch (const Error& error) {
    require(error.code() == ErrorCode::kBadFile);
  }
  return 0;
}
