// SPDX-License-Identifier: Apache-2.0
// Any bytes as a tokenizer description with its data: make_tokenizer gives a tokenizer or an Error, and a
// tokenizer takes any text. Input: the description (JSON) up to a zero byte, then the data (a SentencePiece
// model, mostly).
//   cmake --preset fuzz && cmake --build --preset fuzz --target fuzz_tokenizer
//   build/fuzz/tests/fuzz_tokenizer -max_total_time=60 CORPUS    (start it with the models of tests/golden)
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "engine/error.h"
#include "models/tokenizer.h"
#include "models/utf8.h"

using namespace terrace;

namespace {

void require(bool holds) {
  if (!holds) std::abort();  // libFuzzer reports it with the input
}

/// Texts that reach the parts of an encoder: words, blanks, rewritten and unknown characters, bytes that are
/// no UTF-8.
constexpr const char* kTexts[] = {"the old engineer", "  two   spaces ", "caf\xC3\xA9 \xE2\x80\xA6",
                                  "<sep>>\xF0\x9F\x98\x80", "\xFF\xC3"};

void use(const Tokenizer& tokenizer) {
  for (const char* text : kTexts) {
    const std::vector<TokenId> ids = tokenizer.encode(text);
    const auto stream = tokenizer.stream_decoder();
    std::string streamed;
    for (const TokenId id : ids) streamed += stream->push(id);
    require(streamed + stream->finish() == to_valid_utf8(tokenizer.decode(ids)));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::uint8_t* const end = data + size;
  const std::uint8_t* const cut = std::find(data, end, 0);
  const std::string_view description(reinterpret_cast<const char*>(data),
                                     static_cast<std::size_t>(cut - data));
  const std::span<const std::uint8_t> blob(cut == end ? end : cut + 1, end);
  try {
    use(*make_tokenizer(description, std::as_bytes(blob)));
    // The same bytes as a model whatever the description says, which random JSON would seldom reach.
    use(*make_tokenizer(R"({"kind":"sentencepiece"})", std::as_bytes(blob)));
  } catch (const Error&) {
  }
  return 0;
}
