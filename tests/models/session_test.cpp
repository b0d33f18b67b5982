// SPDX-License-Identifier: Apache-2.0
// Promises of Session: the same bits for any split, any number of threads, after rewind and fork; no
// allocation inside a token; errors that change nothing.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <vector>

#include "engine/kernels/dense_kernels.h"
#include "models/init.h"
#include "models/presets.h"
#include "models/session.h"
#include "tests/support/allocation_counter.h"
#include "tests/support/expect_error.h"
#include "tests/support/session_samples.h"
#include "tests/support/stored_weight.h"
#include "tests/support/temporary_directory.h"

namespace terrace::test {
namespace {

TEST_CASE("session: a prefill of any length, then single tokens, gives the bits of all single tokens") {
  for_samples([](Models& models, const Sample& sample) {
    for (const DType dtype : kAllDtypes) {
      CAPTURE(dtype_name(dtype));
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
    for (const DType dtype : kAllDtypes) {
      CAPTURE(dtype_name(dtype));
      const auto model = models.make(sample, dtype);
      const std::vector<TokenId> ids = some_tokens(*model, 40);
      const Logits expected = step_by_step(model, ids, 1);
      for (const unsigned n_threads : {2U, 3U, 8U}) {
        CAPTURE(n_threads);
        CHECK(step_by_step(model, ids, n_threads) == expected);
      }
    }
  });
}

TEST_CASE("session: nor where blocks are wide enough to be shared, with an SRU path beside the controller") {
  ModelConfig config = decoder_as_language_model(preset_config("c4-medium", /*dense=*/false));
  config.decoder.n_layers = 2;
  config.vocab_size = 512;
  const TemporaryDirectory directory;
  for (const DType dtype : kAllDtypes) {
    CAPTURE(dtype_name(dtype));
    const std::string path = directory.file(dtype_name(dtype));
    init_model(config, path, {.dtype = dtype, .seed = 2});
    const auto model = Model::load(path);
    const std::vector<TokenId> ids = some_tokens(*model, 12);
    const Logits expected = step_by_step(model, ids);
    for (const unsigned n_threads : {2U, 3U, 5U}) {
      CAPTURE(n_threads);
      const Logits found = step_by_step(model, ids, n_threads);
      for (std::size_t t = 0; t < ids.size(); ++t) CHECK(same_bits(found[t], expected[t]));
    }
    Runtime runtime({.n_threads = 2});
    Session session = start(model, runtime);
    session.prefill(ids);
    CHECK(same_bits(session.logits(), expected.back()));
  }
}

TEST_CASE("session: all vector instruction sets compute the same bits, and stay near the scalar one") {
  // Only gelu, silu and sigmoid differ between scalar and vector code (engine/kernels/README.md).
  for_samples([](Models& models, const Sample& sample) {
    for (const DType dtype : kAllDtypes) {
      CAPTURE(dtype_name(dtype));
      const auto scalar = models.make(sample, dtype, Isa::kScalar);
      const std::vector<TokenId> ids = some_tokens(*scalar, 24);
      const Logits specified = step_by_step(scalar, ids);
      Logits vector;
      for (const Isa isa : available_isas()) {
        if (isa == Isa::kScalar) continue;
        CAPTURE(isa_name(isa));
        const Logits rows = step_by_step(models.make(sample, dtype, isa), ids);
        // Tiles add up split bf16 activations in an order of their own (DenseKernels::dot_split_bf16).
        if (dtype == DType::kBf16 && dense_kernels(isa).pack_split) {
          CHECK(largest_difference(rows, vector) < 1e-4F);
          continue;
        }
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

TEST_CASE("session: forks with a runtime of their own run beside the session they come from") {
  for_samples([](Models& models, const Sample& sample) {
    const auto model = models.make(sample);
    const std::vector<TokenId> ids = some_tokens(*model, kLength);
    const Logits expected = step_by_step(model, ids);
    Runtime runtime({.n_threads = 2});
    Session session = start(model, runtime);
    session.prefill(std::span(ids).first(70));
    std::vector<std::thread> threads;
    std::vector<std::vector<float>> found(2);
    for (std::vector<float>& logits : found) {
      threads.emplace_back([&model, &session, &ids, &logits] {
        Runtime own({.n_threads = 1});
        Session fork = session.fork(own);
        fork.prefill(some_tokens(*model, 20, 5));
        fork.rewind(66);
        fork.prefill(std::span(ids).subspan(66));
        logits.assign(fork.logits().begin(), fork.logits().end());
      });
    }
    for (std::thread& thread : threads) thread.join();
    session.prefill(std::span(ids).subspan(70));
    CHECK(same_bits(session.logits(), expected.back()));
    for (const std::vector<float>& logits : found) CHECK(same_bits(logits, expected.back()));
  });
}

TEST_CASE("session: greedy tokens are the largest of the logits, which can still be had") {
  for_samples([](Models& models, const Sample& sample) {
    for (const DType dtype : {DType::kF32, DType::kQ8}) {
      const auto model = models.make(sample, dtype);
      Runtime runtime({.n_threads = 2});
      Session greedy = start(model, runtime);
      Session plain = start(model, runtime);
      TokenId next = some_tokens(*model, 1)[0];
      for (std::size_t t = 0; t < 40; ++t) {
        const std::span<const float> logits = plain.decode(next);
        next = greedy.decode_greedy(next);
        CHECK(next == std::max_element(logits.begin(), logits.end()) - logits.begin());
      }
      const TemporaryDirectory folder;
      greedy.save(folder.file("state"));
      Session loaded = start(model, runtime);
      loaded.load(folder.file("state"));
      CHECK(same_bits(loaded.logits(), plain.logits()));
      greedy.decode_greedy(next);
      Session fork = greedy.fork();
      CHECK(same_bits(fork.logits(), greedy.logits()));
    }
  });
}

TEST_CASE("session: LSH layers can attend exactly, and keep the promises") {
  Models models;
  const auto model = models.make(sample_named("chunked self-attention, LSH and running sums"));
  const std::vector<TokenId> ids = some_tokens(*model, kLength);
  const Logits hashed = step_by_step(model, ids);
  Runtime runtime({.n_threads = 2});
  const Session::Options exact{.exact_attention = true};
  Session session(model, runtime, exact);
  Logits rows;
  decode_all(session, ids, rows);
  CHECK(same_bits(rows[1], hashed[1]));  // one position before it: nothing to choose
  CHECK_FALSE(same_bits(rows.back(), hashed.back()));
  Session prefilled(model, runtime, exact);
  prefilled.prefill(ids);
  CHECK(same_bits(prefilled.logits(), rows.back()));
  prefilled.save(models.file("exact"));
  Session fork = prefilled.fork();
  fork.rewind(60);
  fork.prefill(std::span(ids).subspan(60));
  CHECK(same_bits(fork.logits(), rows.back()));
  session.rewind(0);
  session.load(models.file("exact"));
  session.rewind(100);
  session.prefill(std::span(ids).subspan(100));
  CHECK(same_bits(session.logits(), rows.back()));
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
      const AllocationCounter counter;
      for (std::size_t t = 1; t < ids.size(); ++t) {
        t % 3 == 0 ? static_cast<void>(session.decode_greedy(ids[t]))
                   : static_cast<void>(session.decode(ids[t]));
      }
      CHECK(counter.allocations() == 0);
    }
  });
}

TEST_CASE("session: bf16, q8 and q4 keys and values keep the same promises") {
  for_samples([](Models& models, const Sample& sample) {
    const auto model = models.make(sample);
    const std::vector<TokenId> ids = some_tokens(*model, kLength);
    const Logits exact = step_by_step(model, ids);
    for (const KvType type : {KvType::kBf16, KvType::kQ8, KvType::kQ4}) {
      CAPTURE(kv_type_name(type));
      const Logits expected = step_by_step(model, ids, 1, type);
      CHECK(step_by_step(model, ids, 3, type) == expected);
      float worst = 0, largest = 0;
      for (std::size_t i = 0; i < expected[0].size(); ++i) {
        worst = std::max(worst, std::abs(expected[10][i] - exact[10][i]));
        largest = std::max(largest, std::abs(exact[10][i]));
      }
      CHECK(worst < (type == KvType::kQ4 ? 0.15F : 0.05F) * largest);

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

void check_widths(const std::shared_ptr<const Model>& model) {
  const std::vector<TokenId> ids = some_tokens(*model, 30);
  Runtime runtime({.n_threads = 1});
  Session session = start(model, runtime);
  const Logits full = step_by_step(model, ids);
  const std::uint32_t narrow[] = {64};
  session.set_width(narrow);
  Logits prefilled;
  session.prefill(ids, {}, [&](std::size_t, std::span<const float> logits) {
    prefilled.emplace_back(logits.begin(), logits.end());
  });
  CHECK_FALSE(same_bits(session.logits(), full.back()));
  session.rewind(0);
  Logits decoded;
  decode_all(session, ids, decoded);
  CHECK(decoded == prefilled);
  session.rewind(0);
  const std::vector<std::uint32_t> whole(model->config().decoder.n_layers, model->config().d_ff);
  session.set_width(whole);
  session.prefill(ids);
  CHECK(same_bits(session.logits(), full.back()));
  const std::uint32_t impossible[] = {63};
  const std::vector<std::uint32_t> too_many(whole.size() + 1, 64);
  CHECK_THROWS_AS(session.set_width(impossible, true), Error);
  CHECK_THROWS_AS(session.set_width(too_many), Error);
}

/// Reads `ids`, of which those from `change` on at the narrow width.
Session read_at_two_widths(const std::shared_ptr<const Model>& model, Runtime& runtime,
                           std::span<const TokenId> ids, std::size_t change) {
  Session session = start(model, runtime);
  session.prefill(ids.first(std::min(change, ids.size())));
  if (change >= ids.size()) return session;
  const std::uint32_t narrow[] = {64};
  session.set_width(narrow);
  session.prefill(ids.subspan(change));
  return session;
}

/// Tokens that are computed again have the width that they were read with, whatever the next ones get.
void check_rewind_over_widths(const std::shared_ptr<const Model>& model, const std::string& path) {
  constexpr std::size_t kChange = 133;
  const std::vector<TokenId> ids = some_tokens(*model, 150);
  const std::vector<std::uint32_t> whole(model->config().decoder.n_layers, model->config().d_ff);
  const TokenId next = ids[3];
  Runtime runtime({.n_threads = 1});
  Session session = read_at_two_widths(model, runtime, ids, kChange);
  session.set_width(whole);
  session.decode(next);
  session.save(path);
  Session loaded = start(model, runtime);
  loaded.load(path);
  Session fork = session.fork();
  fork.rewind(40);
  fork.prefill(std::span(ids).subspan(40, 30));
  for (Session* const one : {&session, &loaded}) {
    for (const std::size_t position :
         {std::size_t{140}, kChange + 1, kChange, kChange - 2, std::size_t{20}}) {
      CAPTURE(position);
      Session expected = read_at_two_widths(model, runtime, std::span(ids).first(position), kChange);
      expected.set_width(whole);
      one->rewind(position);
      CHECK(std::ranges::equal(one->widths(), whole));
      CHECK(same_bits(one->logits(), expected.logits()));
      Session continued = one->fork();
      CHECK(same_bits(continued.decode(next), expected.decode(next)));
    }
  }
}

TEST_CASE("session: widths are prefixes; unknown ones are refused; rewind gives every token its own") {
  Models models;
  const std::string path = models.file("widths.state");
  for (const Sample& sample : kSamples) {
    if (parse_config(sample.config).decoder.ff.widths.empty()) continue;
    CAPTURE(sample.name);
    for (const DType dtype : kAllDtypes) {
      CAPTURE(dtype_name(dtype));
      const auto model = models.make(sample, dtype);
      check_widths(model);
      check_rewind_over_widths(model, path);
    }
  }
}

TEST_CASE("session: rows that are fetched on demand are the same rows") {
  Models models;
  const std::string path = models.file("on-demand.terrace");
  init_model(parse_config(kSamples[1].config), path, {.dtype = DType::kBf16, .seed = 7});
  const auto whole = Model::load(path, {.isa = best_isa(), .rows_on_demand = false});
  const auto on_demand = Model::load(path, {.isa = best_isa(), .rows_on_demand = true});
  CHECK_FALSE(whole->rows_on_demand());
  CHECK(on_demand->rows_on_demand());
  CHECK_FALSE(Model::load(path)->rows_on_demand());  // it fits into any memory
  const std::vector<TokenId> ids = some_tokens(*whole, 40);
  CHECK(step_by_step(on_demand, ids, 2) == step_by_step(whole, ids, 2));
}

TEST_CASE("session: kinds of layer in dtypes of their own agree between prefill and single tokens") {
  Models models;
  const Sample& sample = kSamples[1];
  WeightDTypes mixed = DType::kQ8;
  mixed.set(LayerKind::kController, DType::kF32);
  mixed.set(LayerKind::kLogits, DType::kBf16);
  mixed.set(LayerKind::kSru, DType::kQ4);
  const std::string path = models.file("mixed.terrace");
  init_model(widened(parse_config(sample.config)), path, {.dtype = mixed, .seed = 7});
  const auto model = Model::load(path);
  CHECK(model->file().weight("decoder.blocks.0.ff.controller.up").dtype == DType::kF32);
  CHECK(model->file().weight("decoder.blocks.0.ff.units").dtype == DType::kQ8);
  CHECK(model->file().weight("decoder.blocks.0.ff.sru.in.weight").dtype == DType::kQ4);
  CHECK(model->file().weight("decoder.logits.proj").dtype == DType::kBf16);
  const std::vector<TokenId> ids = some_tokens(*model, 70);
  const Logits expected = step_by_step(model, ids);
  Runtime runtime({.n_threads = 2});
  Session session = start(model, runtime);
  session.prefill(ids);
  CHECK(same_bits(session.logits(), expected.back()));
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

}  // namespace
}  // namespace terrace::test
