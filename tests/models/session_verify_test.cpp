// SPDX-License-Identifier: Apache-2.0
// Passes that may be taken back in part: Session::verify and Session::mark.
#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "models/session.h"
#include "tests/support/session_samples.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

TEST_CASE("session: verified tokens can be taken back one by one, and nothing is computed again") {
  for_samples([](Models& models, const Sample& sample) {
    for (const DType dtype : kAllDtypes) {
      CAPTURE(dtype_name(dtype));
      const auto model = models.make(sample, dtype);
      const std::vector<TokenId> ids = some_tokens(*model, kLength);
      const Logits expected = step_by_step(model, ids);
      Runtime runtime({.n_threads = 2});
      Session session = start(model, runtime);
      // Passes of all lengths, from every kind of place: the beginning, before, at and over a snapshot.
      for (std::size_t begin = 0, turn = 0; begin < kLength; ++turn) {
        const std::size_t n = std::min({1 + turn * 5 % Session::kMostVerified, kLength - begin});
        CAPTURE(begin);
        CAPTURE(n);
        std::vector<TokenId> wrong = some_tokens(*model, Session::kMostVerified, 11 + turn);
        const std::size_t right = 1 + turn * 3 % n;
        std::copy_n(ids.begin() + static_cast<std::ptrdiff_t>(begin), right, wrong.begin());
        Logits rows;
        session.verify(std::span(wrong).first(n), [&](std::size_t row, std::span<const float> logits) {
          CHECK(row == rows.size());
          CHECK(session.position() == begin + n);
          rows.emplace_back(logits.begin(), logits.end());
        });
        REQUIRE(rows.size() == n);
        for (std::size_t i = 0; i < right; ++i) CHECK(same_bits(rows[i], expected[begin + i]));
        CHECK(same_bits(session.logits(), rows.back()));
        session.rewind(begin + right);
        CHECK(same_bits(session.logits(), expected[begin + right - 1]));
        begin += right;
        if (turn % 2 == 1 && begin < kLength) {
          CHECK(same_bits(session.decode(ids[begin]), expected[begin]));
          ++begin;
        }
      }
      // Snapshots that were made in the middle of such a pass are those of single tokens.
      session.rewind(128);
      CHECK(same_bits(session.logits(), expected[127]));
      session.prefill(std::span(ids).subspan(128));
      CHECK(same_bits(session.logits(), expected.back()));
    }
  });
}

TEST_CASE("session: back at a mark everything is as it was, whatever was read in between") {
  for_samples([](Models& models, const Sample& sample) {
    const auto model = models.make(sample);
    const std::vector<TokenId> ids = some_tokens(*model, kLength);
    Runtime runtime({.n_threads = 2});
    Session plain = start(model, runtime);
    plain.prefill(std::span(ids).first(140));
    plain.save(models.file("plain"));
    Session session = start(model, runtime);
    session.prefill(std::span(ids).first(120));
    session.mark();
    session.prefill(some_tokens(*model, 40, 5));
    session.rewind(120);
    session.verify(std::span(ids).subspan(120, 12), [](std::size_t, std::span<const float>) {});
    session.rewind(125);
    session.prefill(std::span(ids).subspan(125, 15));
    session.save(models.file("marked"));
    CHECK(models.bytes("marked") == models.bytes("plain"));
    Session fork = session.fork();
    fork.rewind(123);  // its marks stayed behind
    fork.prefill(std::span(ids).subspan(123, 17));
    CHECK(same_bits(fork.logits(), plain.logits()));
  });
}

TEST_CASE("session: verify refuses what it cannot feed, and changes nothing") {
  Models models;
  const auto model = models.make(kSamples[1]);
  Runtime runtime({.n_threads = 1});
  Session session(model, runtime, {.max_context = 20});
  session.prefill(some_tokens(*model, 15));
  const std::vector<float> before(session.logits().begin(), session.logits().end());
  const Session::LogitsSink sink = [](std::size_t, std::span<const float>) { FAIL("nothing was fed"); };
  const std::vector<TokenId> unknown = {1, 64};
  CHECK_THROWS_AS(session.verify({}, sink), Error);
  CHECK_THROWS_AS(session.verify(some_tokens(*model, Session::kMostVerified + 1), sink), Error);
  CHECK_THROWS_AS(session.verify(some_tokens(*model, 6), sink), Error);
  CHECK_THROWS_AS(session.verify(unknown, sink), Error);
  CHECK(session.position() == 15);
  CHECK(same_bits(session.logits(), before));
}

}  // namespace
}  // namespace terrace::test
