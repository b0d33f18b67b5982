// SPDX-License-Identifier: Apache-2.0
#include "models/subword_tokenizer.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "models/utf8.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden_file.h"

using namespace terrace;
using terrace::test::expect_error;
using terrace::test::read_golden_file;

namespace {

/// Vocabulary and vectors of tests/golden/make_subword.py.
const nlohmann::json& golden() {
  static const auto json = nlohmann::json::parse(read_golden_file("subword.json"));
  return json;
}

SubwordTokenizer golden_tokenizer(long long n_reserved_ids = 0) {
  return SubwordTokenizer(golden()["vocabulary"].get_ref<const std::string&>(), n_reserved_ids);
}

std::string streamed(const Tokenizer& tokenizer, std::span<const TokenId> ids) {
  const auto stream = tokenizer.stream_decoder();
  std::string text;
  for (const TokenId id : ids) text += stream->push(id);
  return text + stream->finish();
}

}  // namespace

TEST_CASE("subword: a file is read line by line as Trax reads it") {
  const auto tokenizer = golden_tokenizer();
  const auto pieces = golden()["pieces"].get<std::vector<std::string>>();
  REQUIRE(tokenizer.vocab_size() == static_cast<TokenId>(pieces.size()));
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    CAPTURE(i);
    CHECK(tokenizer.piece(static_cast<TokenId>(i)) == pieces[i]);
  }
}

TEST_CASE("subword: encoding gives the oracle's ids, with and without reserved ids") {
  for (const long long n_reserved_ids : {0, 100}) {
    const auto tokenizer = golden_tokenizer(n_reserved_ids);
    for (const auto& pair : golden()["encode"]) {
      const auto text = pair[0].get<std::string>();
      auto ids = pair[1].get<std::vector<TokenId>>();
      for (TokenId& id : ids) id += static_cast<TokenId>(n_reserved_ids);
      CAPTURE(text);
      CHECK(tokenizer.encode(text) == ids);
      CHECK(tokenizer.decode(ids) == text);
    }
  }
}

TEST_CASE("subword: decoding any ids gives the oracle's text, at once and streamed") {
  const auto tokenizer = golden_tokenizer();
  for (const auto& pair : golden()["decode"]) {
    const auto ids = pair[0].get<std::vector<TokenId>>();
    CAPTURE(pair.dump());
    CHECK(tokenizer.decode(ids) == pair[1].get<std::string>());
    CHECK(streamed(tokenizer, ids) == pair[1].get<std::string>());
  }
}

TEST_CASE("subword: streaming writes a token as soon as it is certain") {
  const SubwordTokenizer tokenizer("'cat'\n's_'\n'\\'\n'u'\n'dog_'\n", 0);
  const auto stream = tokenizer.stream_decoder();
  CHECK(stream->push(0) == "cat");
  CHECK(stream->push(1) == "s");
  CHECK(stream->push(4) == " dog");  // both tokens begin with a letter: the space comes with the second
  CHECK(stream->push(2) == "");      // "\": an escape may follow
  CHECK(stream->push(3) == "_");
  CHECK(stream->push(2) == "");
  CHECK(stream->finish() == "\\");  // it never became one
  CHECK(stream->push(4) == "dog");  // and the decoder starts anew
}

TEST_CASE("subword: escapes that name no character become a geta mark") {
  const SubwordTokenizer tokenizer(
      "'\\1114112;_'\n'\\55296;_'\n'\\99999999999999999999;_'\n'\\1114111;_'\n'\\0;_'\n", 0);
  CHECK(tokenizer.decode(std::vector<TokenId>{0}) == "\xE3\x80\x93");
  CHECK(tokenizer.decode(std::vector<TokenId>{1}) == "\xE3\x80\x93");
  CHECK(tokenizer.decode(std::vector<TokenId>{2}) == "\xE3\x80\x93");
  CHECK(tokenizer.decode(std::vector<TokenId>{3}) == "\xF4\x8F\xBF\xBF");
  CHECK(tokenizer.decode(std::vector<TokenId>{4}) == std::string(1, '\0'));
}

TEST_CASE("subword: ids outside the vocabulary stand for nothing, but are no pieces") {
  const auto tokenizer = golden_tokenizer(100);
  const TokenId end = tokenizer.vocab_size();
  CHECK(tokenizer.decode(std::vector<TokenId>{-1, 0, 99, end, 1'000'000}) == "");
  CHECK(tokenizer.piece(99) == "");
  CHECK_THROWS_AS(tokenizer.piece(-1), Error);
  CHECK_THROWS_AS(tokenizer.piece(end), Error);
}

TEST_CASE("subword: bad files and texts are refused with an error") {
  CHECK_THROWS_AS(SubwordTokenizer("", 0), Error);
  CHECK_THROWS_AS(SubwordTokenizer("'a\xFF'\n", 0), Error);
  CHECK_THROWS_AS(SubwordTokenizer("'a_'\n", -1), Error);
  CHECK_THROWS_AS(SubwordTokenizer("'a_'\n", 2147483647), Error);
  const SubwordTokenizer without_underscore("'ab'\n", 0);
  expect_error(ErrorCode::kBadFile, "no piece begins '_'", [&] { without_underscore.encode("ab"); });
}

TEST_CASE("subword: any bytes encode, and decode to their valid UTF-8") {
  const auto tokenizer = golden_tokenizer();
  std::mt19937 rng(11);
  for (int round = 0; round < 2000; ++round) {
    std::string text(rng() % 40, '\0');
    for (char& c : text) c = static_cast<char>(rng() % 4 == 0 ? rng() : " _\\u;0aZ\n"[rng() % 9]);
    CAPTURE(text);
    const auto ids = tokenizer.encode(text);
    CHECK(tokenizer.decode(ids) == to_valid_utf8(text));
    CHECK(streamed(tokenizer, ids) == to_valid_utf8(text));
  }
}
