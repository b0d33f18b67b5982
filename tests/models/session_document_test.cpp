// SPDX-License-Identifier: Apache-2.0
// Documents of encoder-decoder models: checked, told about, cancelled anywhere.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "models/evaluate.h"
#include "models/session.h"
#include "tests/support/expect_error.h"
#include "tests/support/session_samples.h"

namespace terrace::test {
namespace {

TEST_CASE("session: documents are checked, and trailing padding changes nothing") {
  Models models;
  const auto model = models.make(sample_named("Terraformer"));
  Runtime runtime({.n_threads = 1});
  Session session(model, runtime);
  const std::vector<TokenId> ids = some_tokens(*model, 5);
  CHECK_THROWS_AS(session.prefill(ids), Error);  // no document yet
  const std::vector<TokenId> inner_zero = {3, 0, 4};
  const std::vector<TokenId> outside = {3, 40};
  CHECK_THROWS_AS(session.encode(std::vector<TokenId>{}), Error);
  CHECK_THROWS_AS(session.encode(std::vector<TokenId>{0, 0}), Error);
  CHECK_THROWS_AS(session.encode(inner_zero), Error);
  CHECK_THROWS_AS(session.encode(outside), Error);
  CHECK_THROWS_AS(session.encode(std::vector<TokenId>(257, 3)), Error);
  session.encode(std::vector<TokenId>{3, 9, 4});
  session.prefill(ids);
  const std::vector<float> expected(session.logits().begin(), session.logits().end());
  session.encode(std::vector<TokenId>{3, 9, 4, 0, 0, 0});
  CHECK(session.position() == 0);
  session.prefill(ids);
  CHECK(same_bits(session.logits(), expected));
  CHECK_THROWS_AS(
      session.encode(std::vector<TokenId>(200, 3), [](std::size_t, std::size_t) { return false; }), Error);
  CHECK(session.encoder_length() == 3);
  CHECK(same_bits(session.logits(), expected));
}

// Every kind of attention that an encoder may have, in one stack: {"chunk_len": 8} divides the documents
// below.
const Sample kEncoders = {
    "all kinds of encoder attention",
    R"({"family":"terraformer","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":40,"max_context":4096,
        "shared_embedding":true,
        "encoder":{"n_layers":8,"vocab_size":40,"reversible":true,"forget_every":2,"position":{"kind":"sin_cos"},
        "attention":[{"kind":"dot_product"},{"kind":"favor"},{"kind":"favor","causal":true},{"kind":"self"},
                     {"kind":"multiplicative_conv","n_modules":4,"causal":true},
                     {"kind":"self","chunk_len":8,"n_chunks_before":1,"n_chunks_after":1},
                     {"kind":"lsh","chunk_len":8,"n_hashes":2,"n_buckets":8,"mem_len":64,"drop_len":16},
                     {"kind":"mixed_lsh","chunk_len":8,"n_hashes":1,"n_buckets":8,"mem_len":64,"drop_len":16,
                      "std_length":4096}],
        "ff":{"kind":"dense"}},
        "decoder":{"n_layers":2,"forget_every":0,"position":{"kind":"sin_cos"},
        "attention":[{"kind":"dot_product"}],"ff":{"kind":"dense"}}})"};

TEST_CASE("session: a document tells its progress, and may be cancelled anywhere in encoder and decoder") {
  Models models;
  const auto model = models.make(kEncoders);
  Runtime runtime({.n_threads = 2});
  Session session(model, runtime);
  const std::vector<TokenId> document(1200, 7);
  std::vector<std::size_t> told;
  session.encode(document, [&](std::size_t done, std::size_t total) {
    CHECK(total == document.size());
    told.push_back(done);
    return true;
  });
  CHECK(std::is_sorted(told.begin(), told.end()));
  CHECK(told.size() > 60);
  CHECK(told.back() == document.size());  // the passes are counted as they are made
  CHECK(told[told.size() - 2] < document.size());
  CHECK(session.document_times().encoder > 0);
  CHECK(session.document_times().prefill > 0);
  session.prefill(some_tokens(*model, 5));
  const std::vector<float> expected(session.logits().begin(), session.logits().end());

  std::size_t n_emptied = 0;
  for (std::size_t cancel_at = 0; cancel_at < told.size(); cancel_at += 7) {
    CAPTURE(cancel_at);
    std::size_t ticks = 0;
    expect_error(ErrorCode::kCancelled, "cancelled while reading the document", [&] {
      session.encode(document, [&](std::size_t, std::size_t) { return ticks++ < cancel_at; });
    });
    CHECK(ticks == cancel_at + 1);
    if (session.encoder_length() == 0) {  // the decoder had begun
      CHECK(session.document_times().encoder == 0);
      ++n_emptied;
      continue;
    }
    CHECK(n_emptied == 0);
    CHECK(session.position() == 5);
    CHECK(same_bits(session.logits(), expected));
  }
  CHECK(n_emptied > 0);
  session.encode(document);
  session.prefill(some_tokens(*model, 5));
  CHECK(same_bits(session.logits(), expected));
}

TEST_CASE("session: an encoder for rows takes rows of its width") {
  const Sample sample = {
      "rows",
      R"({"family":"terraformer","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":40,"max_context":64,
          "encoder":{"n_layers":1,"d_input":3,"position":{"kind":"sin_cos"},
          "attention":[{"kind":"dot_product"}],"ff":{"kind":"dense"}},
          "decoder":{"n_layers":1,"position":{"kind":"sin_cos"},"attention":[{"kind":"dot_product"}],
          "ff":{"kind":"dense"}}})"};
  Models models;
  const auto model = models.make(sample);
  Runtime runtime({.n_threads = 1});
  Session session(model, runtime);
  const std::vector<float> numbers(24, 0.5F);
  session.encode(ConstRows(numbers.data(), 8, 3, 3));
  CHECK(session.encoder_length() == 8);
  expect_error(ErrorCode::kBadArgument, "takes rows of 3 numbers, found 4",
               [&] { session.encode(ConstRows(numbers.data(), 6, 4, 4)); });
  expect_error(ErrorCode::kBadArgument, "takes rows of 3 numbers, not tokens", [&] {
    session.encode(std::vector<TokenId>{1, 2});
  });
  expect_error(ErrorCode::kBadArgument, "the document is empty",
               [&] { session.encode(ConstRows(numbers.data(), 0, 3, 3)); });
  CHECK(session.encoder_length() == 8);  // nothing was changed
  const auto with_tokens = models.make(kEncoders);
  Session other(with_tokens, runtime);
  expect_error(ErrorCode::kBadArgument, "takes tokens, not rows",
               [&] { other.encode(ConstRows(numbers.data(), 8, 3, 3)); });
}

TEST_CASE("session: a document replaces all that was there, marks too") {
  Models models;
  for (const Sample& sample : kSamples) {
    const ModelConfig config = parse_config(sample.config);
    if (!config.encoder || config.encoder->vocab_size == 0) continue;
    CAPTURE(sample.name);
    const auto model = models.make(sample);
    Runtime runtime({.n_threads = 1});
    const std::vector<TokenId> first(9, 7), second(14, 5), ids = some_tokens(*model, 30);
    Session expected(model, runtime);
    expected.encode(second);
    expected.prefill(std::span(ids).first(20));
    Session session(model, runtime);
    session.encode(first);
    session.verify(std::span(ids).first(5), {});
    session.rewind(0);
    session.mark();
    session.encode(second);
    session.prefill(ids);
    session.rewind(20);
    CHECK(same_bits(session.logits(), expected.logits()));
    session.rewind(0);
    session.prefill(std::span(ids).first(20));
    CHECK(same_bits(session.logits(), expected.logits()));
  }
}

TEST_CASE("session: rotary positions of a decoder count on behind the document") {
  const Sample sample = {
      "rotary-terraformer",
      R"({"family":"terraformer","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":40,"max_context":64,
          "encoder":{"n_layers":1,"vocab_size":40,"position":{"kind":"none"},
          "attention":[{"kind":"dot_product","rotary":{}},{"kind":"self","chunk_len":48}],"ff":{"kind":"dense"}},
          "decoder":{"n_layers":1,"position":{"kind":"none"},"attention":[{"kind":"dot_product","rotary":{}}],
          "ff":{"kind":"dense"}}})"};
  Models models;
  const auto model = models.make(sample);
  Runtime runtime({.n_threads = 2});
  const std::vector<TokenId> document(64, 7), ids = some_tokens(*model, 64);
  Session at_once(model, runtime);
  at_once.encode(document);
  at_once.prefill(ids);
  CHECK(std::isfinite(at_once.logits()[0]));
  Session by_token(model, runtime);
  by_token.encode(document);
  for (const TokenId id : ids) by_token.decode(id);
  CHECK(same_bits(at_once.logits(), by_token.logits()));
  const auto nothing = [](std::size_t, std::span<const float>) {};
  const EncoderInput input(document);
  evaluate(*model, runtime, ids, &input, nothing);
  expect_error(ErrorCode::kContextFull, "the text has 65 tokens, but the model's positions end at 64",
               [&] { evaluate(*model, runtime, some_tokens(*model, 65), &input, nothing); });
}

TEST_CASE("session: any id fills up the last chunk of a document where no id is for padding") {
  const Sample sample = {
      "no-padding-id",
      R"({"family":"transformer","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":40,"max_context":128,
          "tokens":{"pad":-1},
          "encoder":{"n_layers":1,"vocab_size":40,"position":{"kind":"sin_cos"},
          "attention":[{"kind":"self","chunk_len":64}],"ff":{"kind":"dense"}},
          "decoder":{"n_layers":1,"position":{"kind":"sin_cos"},"attention":[{"kind":"dot_product"}],
          "ff":{"kind":"dense"}}})"};
  Models models;
  const auto model = models.make(sample);
  Runtime runtime({.n_threads = 1});
  Session session(model, runtime);
  const std::vector<TokenId> document(70, 7);
  session.encode(document);
  CHECK(std::isfinite(session.decode(1)[0]));
}

TEST_CASE("session: a model without a token-by-token form is refused before anything happens") {
  const Sample sample = {
      "derived-buckets",
      R"({"family":"transformer_lm","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":40,"max_context":256,
          "decoder":{"n_layers":2,"position":{"kind":"none"},"attention":[{"kind":"dot_product"},
          {"kind":"lsh","chunk_len":8,"n_hashes":1,"mem_len":64,"drop_len":16}],"ff":{"kind":"dense"}}})"};
  Models models;
  const auto model = models.make(sample);
  Runtime runtime({.n_threads = 1});
  expect_error(ErrorCode::kUnsupported, "no token-by-token form", [&] { Session session(model, runtime); });
}

}  // namespace
}  // namespace terrace::test
