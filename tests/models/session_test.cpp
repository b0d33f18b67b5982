// SPDX-License-Identifier: Apache-2.0
// Promises of Session: the same bits for any split, any number of threads, after rewind, fork and restore; no
// allocation inside a token; errors that change nothing.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <vector>

#include "models/init.h"
#include "models/session.h"
#include "tests/support/allocation_counter.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace terrace {
namespace {

using Logits = std::vector<std::vector<float>>;

constexpr std::size_t kLength = 150;  // crosses a page of the cache and a snapshot

struct Sample {
  const char* name;
  const char* config;
  bool exact_on_scalar = false;  ///< no activation whose scalar version is the C library's
};

// Every stateful layer at least once, with odd sizes.
const Sample kSamples[] = {
    {"dense, grouped-query, rotary, gated, RMSNorm",
     R"({"family":"transformer_lm","d_model":48,"d_ff":128,"n_heads":4,"vocab_size":61,"max_context":256,
         "norm":{"kind":"rms_norm"},"decoder":{"n_layers":2,"position":{"kind":"none"},
         "attention":[{"kind":"dot_product","n_kv_heads":2,"rotary":{}}],
         "ff":{"kind":"dense","activation":"silu","gated":true,"widths":[64,128]}}})"},
    {"sparse with SRU and sparse output",
     R"({"family":"transformer_lm","d_model":64,"d_ff":128,"n_heads":4,"vocab_size":64,"max_context":256,
         "decoder":{"n_layers":2,"position":{"kind":"learned","max_len":256},
         "attention":[{"kind":"multiplicative_conv","n_modules":8,"v_concat":"original","output":"multconv"}],
         "ff":{"kind":"sparse","block_size":8,"d_lowrank":12,"sru":{"n_layers":2,"width":16},"widths":[32,64,128]}},
         "logits":{"kind":"mult","n_modules":4}})"},
    {"parallel block, multi-query, depthwise convolutions",
     R"({"family":"transformer_lm","d_model":40,"d_ff":96,"n_heads":5,"vocab_size":50,"max_context":256,
         "decoder":{"n_layers":2,"position":{"kind":"sin_cos"},"parallel":true,
         "attention":[{"kind":"dot_product","n_kv_heads":1,"use_dconv":true}],"ff":{"kind":"dense","activation":"gelu"}}})"},
    {"chunked self-attention, LSH and running sums",
     R"({"family":"reformer_lm","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":40,"max_context":256,
         "decoder":{"n_layers":3,"position":{"kind":"fixed_base"},
         "attention":[{"kind":"self","share_qk":true,"chunk_len":8,"n_chunks_before":1},
                      {"kind":"lsh","chunk_len":8,"n_chunks_before":1,"n_hashes":2,"n_buckets":8,"mem_len":64,"drop_len":16},
                      {"kind":"favor"}],"ff":{"kind":"switch","n_experts":4}}})",
     true},
    {"Terraformer",
     R"({"family":"terraformer","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":40,"max_context":256,
         "shared_embedding":true,
         "encoder":{"n_layers":2,"vocab_size":40,"reversible":true,"position":{"kind":"learned","max_len":256},
         "attention":[{"kind":"dot_product"}],"ff":{"kind":"sparse","block_size":8,"d_lowrank":8}},
         "decoder":{"n_layers":2,"n_attention":2,"position":{"kind":"learned","max_len":256},
         "attention":[{"kind":"multiplicative_conv","n_modules":4}],
         "ff":{"kind":"sparse","block_size":8,"d_lowrank":8,"sru":{"n_layers":1,"width":8}}}})"},
    {"cross attention with a sparse query",
     R"({"family":"transformer","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":40,"max_context":256,
         "encoder":{"n_layers":1,"vocab_size":30,"position":{"kind":"sin_cos"},
         "attention":[{"kind":"dot_product"}],"ff":{"kind":"dense"}},
         "decoder":{"n_layers":2,"position":{"kind":"sin_cos"},"attention":[{"kind":"dot_product"}],
         "cross":{"q_modules":4,"has_output":false},"ff":{"kind":"block","n_experts":2}}})",
     true},
};

class Models {
 public:
  std::shared_ptr<const Model> make(const Sample& sample, DType dtype = DType::kF32,
                                    Isa isa = isa_from_environment()) {
    const std::string path = directory_.file("model-" + std::to_string(n_++) + ".terrace");
    init_model(parse_config(sample.config), path, {.dtype = dtype, .seed = 7});
    return Model::load(path, {.isa = isa});
  }
  std::string file(const std::string& name) { return directory_.file(name); }

 private:
  test::TemporaryDirectory directory_;
  int n_ = 0;
};

std::vector<TokenId> some_tokens(const Model& model, std::size_t n, std::size_t seed = 3) {
  std::vector<TokenId> ids;
  for (std::size_t i = 0; i < n; ++i) {
    ids.push_back(static_cast<TokenId>((i * i * 7 + i * seed + seed) % model.config().vocab_size));
  }
  return ids;
}

Session start(const std::shared_ptr<const Model>& model, Runtime& runtime, KvType type = KvType::kF32) {
  Session session(model, runtime, {.kv_type = type});
  if (model->has_encoder()) {
    std::vector<TokenId> document;
    for (int i = 0; i < 70; ++i) document.push_back(1 + i * 11 % 29);
    session.encode(document);
  }
  return session;
}

void decode_all(Session& session, std::span<const TokenId> ids, Logits& rows) {
  const auto region = session.hold();
  for (const TokenId id : ids) {
    const auto logits = session.decode(id);
    rows.emplace_back(logits.begin(), logits.end());
  }
}

Logits step_by_step(const std::shared_ptr<const Model>& model, std::span<const TokenId> ids,
                    unsigned n_threads = 1, KvType type = KvType::kF32) {
  Runtime runtime({.n_threads = n_threads});
  Session session = start(model, runtime, type);
  Logits rows;
  decode_all(session, ids, rows);
  return rows;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

float largest_difference(const Logits& a, const Logits& b) {
  float worst = 0;
  for (std::size_t t = 0; t < a.size(); ++t) {
    for (std::size_t i = 0; i < a[t].size(); ++i) worst = std::max(worst, std::abs(a[t][i] - b[t][i]));
  }
  return worst;
}

template <class F>
void for_samples(F&& fn) {
  Models models;
  for (const Sample& sample : kSamples) {
    CAPTURE(sample.name);
    fn(models, sample);
  }
}

TEST_CASE("session: a prefill of any length, then single tokens, gives the bits of all single tokens") {
  for_samples([](Models& models, const Sample& sample) {
    for (const DType dtype : {DType::kF32, DType::kBf16}) {
      const auto model = models.make(sample, dtype);
      const std::vector<TokenId> ids = some_tokens(*model, kLength);
      const Logits expected = step_by_step(model, ids);
      Runtime runtime({.n_threads = 2});
      for (const std::size_t split :
           {std::size_t{1}, std::size_t{2}, std::size_t{5}, std::size_t{64}, std::size_t{129}, kLength}) {
        CAPTURE(split);
        Session session = start(model, runtime);
        Logits rows;
        session.prefill(std::span(ids).first(split), {}, [&](std::size_t row, std::span<const float> logits) {
          CHECK(row == rows.size());
          rows.emplace_back(logits.begin(), logits.end());
        });
        CHECK(same_bits(session.logits(), expected[split - 1]));
        decode_all(session, std::span(ids).subspan(split), rows);
        bool equal = rows.size() == expected.size();
        for (std::size_t t = 0; equal && t < rows.size(); ++t) equal = same_bits(rows[t], expected[t]);
        CHECK(equal);
      }
    }
  });
}

TEST_CASE("session: the number of threads does not change a bit") {
  for_samples([](Models& models, const Sample& sample) {
    const auto model = models.make(sample);
    const std::vector<TokenId> ids = some_tokens(*model, 40);
    const Logits expected = step_by_step(model, ids, 1);
    for (const unsigned n_threads : {2U, 3U, 8U}) {
      CAPTURE(n_threads);
      CHECK(step_by_step(model, ids, n_threads) == expected);
    }
  });
}

TEST_CASE("session: all vector instruction sets compute the same bits, and stay near the scalar one") {
  // Only gelu, silu and sigmoid differ between scalar and vector code (engine/kernels/README.md).
  for_samples([](Models& models, const Sample& sample) {
    for (const DType dtype : {DType::kF32, DType::kBf16, DType::kQ8, DType::kQ4}) {
      CAPTURE(dtype_name(dtype));
      const auto scalar = models.make(sample, dtype, Isa::kScalar);
      const std::vector<TokenId> ids = some_tokens(*scalar, 24);
      const Logits specified = step_by_step(scalar, ids);
      Logits vector;
      for (const Isa isa : available_isas()) {
        if (isa == Isa::kScalar) continue;
        CAPTURE(isa_name(isa));
        const Logits rows = step_by_step(models.make(sample, dtype, isa), ids);
        if (vector.empty()) vector = rows;
        CHECK(rows == vector);
        if (sample.exact_on_scalar) CHECK(rows == specified);
        if (dtype == DType::kF32) CHECK(largest_difference(rows, specified) < 1e-3F);
      }
    }
  });
}

TEST_CASE("session: rewinding to any place and going on repeats the same bits") {
  for_samples([](Models& models, const Sample& sample) {
    const auto model = models.make(sample);
    const std::vector<TokenId> ids = some_tokens(*model, kLength);
    const Logits expected = step_by_step(model, ids);
    Runtime runtime({.n_threads = 1});
    Session session = start(model, runtime);
    session.prefill(ids);
    for (const std::size_t position : {kLength - 1, std::size_t{129}, std::size_t{128}, std::size_t{127},
                                       std::size_t{17}, std::size_t{1}, std::size_t{0}}) {
      CAPTURE(position);
      session.rewind(position);
      CHECK(session.position() == position);
      if (position > 0) CHECK(same_bits(session.logits(), expected[position - 1]));
      // Another continuation first, so that what is cut off really was overwritten.
      session.prefill(some_tokens(*model, 20, 5));
      session.rewind(position);
      session.prefill(std::span(ids).subspan(position));
      CHECK(same_bits(session.logits(), expected.back()));
    }
  });
}

TEST_CASE("session: forks go their own ways without touching each other") {
  for_samples([](Models& models, const Sample& sample) {
    const auto model = models.make(sample);
    const std::vector<TokenId> ids = some_tokens(*model, kLength);
    const Logits expected = step_by_step(model, ids);
    Runtime runtime({.n_threads = 2});
    Session session = start(model, runtime);
    session.prefill(std::span(ids).first(140));
    Session fork = session.fork();
    CHECK(same_bits(fork.logits(), session.logits()));
    fork.rewind(60);
    fork.prefill(some_tokens(*model, 90, 11));
    session.prefill(std::span(ids).subspan(140));
    CHECK(same_bits(session.logits(), expected.back()));
    Session second = session.fork();
    second.rewind(100);
    second.prefill(std::span(ids).subspan(100));
    CHECK(same_bits(second.logits(), expected.back()));
  });
}

TEST_CASE("session: a saved state goes on as if nothing had happened") {
  for_samples([](Models& models, const Sample& sample) {
    const auto model = models.make(sample);
    const std::vector<TokenId> ids = some_tokens(*model, kLength);
    const Logits expected = step_by_step(model, ids);
    const std::string path = models.file("state");
    Runtime runtime({.n_threads = 2});
    {
      Session session = start(model, runtime);
      session.prefill(std::span(ids).first(131));
      session.save(path);
    }
    Session session(model, runtime);
    session.load(path);
    CHECK(session.position() == 131);
    CHECK(same_bits(session.logits(), expected[130]));
    session.rewind(120);
    session.prefill(std::span(ids).subspan(120));
    CHECK(same_bits(session.logits(), expected.back()));
  });
}

TEST_CASE("session: a token allocates nothing") {
  for_samples([](Models& models, const Sample& sample) {
    const auto model = models.make(sample);
    const std::vector<TokenId> ids = some_tokens(*model, kLength);
    for (const KvType type : kKvTypes) {
      Runtime runtime({.n_threads = 1});
      Session session = start(model, runtime, type);
      const auto region = session.hold();
      session.decode(ids[0]);
      const test::AllocationCounter counter;
      for (std::size_t t = 1; t < ids.size(); ++t) session.decode(ids[t]);
      CHECK(counter.allocations() == 0);
    }
  });
}

TEST_CASE("session: bf16 and q8 keys and values keep the same promises") {
  for_samples([](Models& models, const Sample& sample) {
    const auto model = models.make(sample);
    const std::vector<TokenId> ids = some_tokens(*model, kLength);
    const Logits exact = step_by_step(model, ids);
    for (const KvType type : {KvType::kBf16, KvType::kQ8}) {
      CAPTURE(kv_type_name(type));
      const Logits expected = step_by_step(model, ids, 1, type);
      CHECK(step_by_step(model, ids, 3, type) == expected);
      float worst = 0, largest = 0;
      for (std::size_t i = 0; i < expected[0].size(); ++i) {
        worst = std::max(worst, std::abs(expected[10][i] - exact[10][i]));
        largest = std::max(largest, std::abs(exact[10][i]));
      }
      CHECK(worst < 0.05F * largest);

      Runtime runtime({.n_threads = 2});
      const std::string path = models.file("state");
      Session session = start(model, runtime, type);
      session.prefill(std::span(ids).first(131));
      CHECK(same_bits(session.logits(), expected[130]));
      session.save(path);
      Session fork = session.fork();
      fork.rewind(60);
      fork.prefill(some_tokens(*model, 40, 11));
      session.rewind(17);
      session.prefill(some_tokens(*model, 20, 5));
      session.rewind(17);
      session.prefill(std::span(ids).subspan(17));
      CHECK(same_bits(session.logits(), expected.back()));
      fork.load(path);
      CHECK(same_bits(fork.logits(), expected[130]));
      fork.prefill(std::span(ids).subspan(131));
      CHECK(same_bits(fork.logits(), expected.back()));
    }
  });
}

TEST_CASE("session: a state goes to a session that keeps keys and values the same way only") {
  Models models;
  const auto model = models.make(kSamples[0]);
  Runtime runtime({.n_threads = 1});
  const std::string path = models.file("state");
  Session session = start(model, runtime, KvType::kQ8);
  session.prefill(some_tokens(*model, 9));
  session.save(path);
  Session other(model, runtime);
  test::expect_error(ErrorCode::kBadArgument,
                     "saved with keys and values in q8, this session keeps them in f32",
                     [&] { other.load(path); });
  CHECK(other.position() == 0);
}

TEST_CASE("session: widths are prefixes; unknown ones are refused") {
  Models models;
  for (const std::size_t i : {0, 1}) {
    CAPTURE(kSamples[i].name);
    const auto model = models.make(kSamples[i]);
    const std::vector<TokenId> ids = some_tokens(*model, 30);
    Runtime runtime({.n_threads = 1});
    Session session = start(model, runtime);
    const Logits full = step_by_step(model, ids);
    const std::uint32_t narrow[] = {64};
    session.set_width(narrow);
    session.prefill(ids);
    CHECK_FALSE(same_bits(session.logits(), full.back()));
    session.rewind(0);
    const std::uint32_t whole[] = {128, 128};
    session.set_width(whole);
    session.prefill(ids);
    CHECK(same_bits(session.logits(), full.back()));
    const std::uint32_t impossible[] = {63};
    const std::uint32_t too_many[] = {64, 64, 64};
    CHECK_THROWS_AS(session.set_width(impossible, true), Error);
    CHECK_THROWS_AS(session.set_width(too_many), Error);
  }
}

TEST_CASE("session: bad input is refused before anything changes") {
  Models models;
  const auto model = models.make(kSamples[1]);
  Runtime runtime({.n_threads = 1});
  Session session(model, runtime, {.max_context = 20});
  CHECK_THROWS_AS((void)session.logits(), Error);
  const std::vector<TokenId> ids = some_tokens(*model, 10);
  session.prefill(ids);
  const std::vector<float> before(session.logits().begin(), session.logits().end());
  const std::vector<TokenId> unknown = {1, 2, 64};
  const std::vector<TokenId> negative = {-1};
  CHECK_THROWS_AS(session.prefill(unknown), Error);
  CHECK_THROWS_AS(session.prefill(negative), Error);
  CHECK_THROWS_AS(session.prefill(some_tokens(*model, 11)), Error);
  CHECK_THROWS_AS(session.rewind(11), Error);
  CHECK_THROWS_AS(session.encode(ids), Error);
  CHECK(session.position() == 10);
  CHECK(same_bits(session.logits(), before));
  session.prefill({});
  CHECK(session.position() == 10);
  CHECK_THROWS_AS(Session(model, runtime, {.max_context = 257}), Error);
}

TEST_CASE("session: a cancelled prefill keeps what is done") {
  Models models;
  const auto model = models.make(kSamples[1]);
  const std::vector<TokenId> ids = some_tokens(*model, kLength);
  const Logits expected = step_by_step(model, ids);
  Runtime runtime({.n_threads = 2});
  Session session(model, runtime);
  CHECK_THROWS_AS(session.prefill(ids, [](std::size_t done, std::size_t) { return done < 100; }), Error);
  REQUIRE(session.position() > 0);
  REQUIRE(session.position() < kLength);
  CHECK(same_bits(session.logits(), expected[session.position() - 1]));
  session.prefill(std::span(ids).subspan(session.position()));
  CHECK(same_bits(session.logits(), expected.back()));
}

TEST_CASE("session: documents are checked, and trailing padding changes nothing") {
  Models models;
  const auto model = models.make(kSamples[4]);
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
  CHECK(session.encoder_length() == 0);
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

  for (std::size_t cancel_at = 0; cancel_at < told.size(); cancel_at += 7) {
    CAPTURE(cancel_at);
    std::size_t ticks = 0;
    test::expect_error(ErrorCode::kCancelled, "cancelled while reading the document", [&] {
      session.encode(document, [&](std::size_t, std::size_t) { return ticks++ < cancel_at; });
    });
    CHECK(ticks == cancel_at + 1);
    CHECK(session.encoder_length() == 0);
    CHECK(session.document_times().encoder == 0);
  }
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
  test::expect_error(ErrorCode::kBadArgument, "takes rows of 3 numbers, found 4",
                     [&] { session.encode(ConstRows(numbers.data(), 6, 4, 4)); });
  test::expect_error(ErrorCode::kBadArgument, "takes rows of 3 numbers, not tokens", [&] {
    session.encode(std::vector<TokenId>{1, 2});
  });
  test::expect_error(ErrorCode::kBadArgument, "the document is empty",
                     [&] { session.encode(ConstRows(numbers.data(), 0, 3, 3)); });
  CHECK(session.encoder_length() == 8);  // nothing was changed
  const auto with_tokens = models.make(kEncoders);
  Session other(with_tokens, runtime);
  test::expect_error(ErrorCode::kBadArgument, "takes tokens, not rows",
                     [&] { other.encode(ConstRows(numbers.data(), 8, 3, 3)); });
}

TEST_CASE("session: broken state files are refused and the session stays as it was") {
  Models models;
  const auto model = models.make(kSamples[1]);
  const auto other = models.make(kSamples[0]);
  Runtime runtime({.n_threads = 1});
  Session session(model, runtime);
  session.prefill(some_tokens(*model, 9));
  const std::string path = models.file("state");
  session.save(path);
  std::ifstream in(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const std::vector<float> before(session.logits().begin(), session.logits().end());
  const auto refuse = [&](const std::string& content) {
    const std::string broken = models.file("broken");
    std::ofstream(broken, std::ios::binary) << content;
    CHECK_THROWS_AS(session.load(broken), Error);
  };
  for (std::size_t n = 1; n < bytes.size(); n += 997) refuse(bytes.substr(0, n));
  for (std::size_t i = 0; i < bytes.size(); i += 1013) {
    std::string flipped = bytes;
    flipped[i] = static_cast<char>(flipped[i] ^ 0x41);
    refuse(flipped);
  }
  CHECK_THROWS_AS(session.load(models.file("missing")), Error);
  CHECK_THROWS_AS(session.save("/nonexistent/state"), Error);
  Session stranger(other, runtime);
  CHECK_THROWS_AS(stranger.load(path), Error);
  CHECK(same_bits(session.logits(), before));
  CHECK(session.position() == 9);
}

}  // namespace
}  // namespace terrace
