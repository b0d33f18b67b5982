// SPDX-License-Identifier: Apache-2.0
// Saved states: they go on as if nothing had happened, and broken ones are refused.
#include <doctest/doctest.h>

#include <fstream>
#include <string>
#include <vector>

#include "models/session.h"
#include "tests/support/expect_error.h"
#include "tests/support/session_samples.h"

namespace terrace::test {
namespace {

TEST_CASE("session: equal states are equal files, and nothing is left of tokens that were taken back") {
  for_samples([](Models& models, const Sample& sample) {
    const auto model = models.make(sample);
    Runtime runtime({.n_threads = 1});
    Session session = start(model, runtime);
    session.save(models.file("fresh"));
    session.prefill(some_tokens(*model, 20));
    session.rewind(0);
    session.save(models.file("rewound"));
    CHECK(models.bytes("rewound") == models.bytes("fresh"));
    session.verify(some_tokens(*model, 5), {});
    session.logits();
    session.rewind(0);  // to a mark
    session.save(models.file("rewound"));
    CHECK(models.bytes("rewound") == models.bytes("fresh"));
  });
}

TEST_CASE("session: loading a state keeps who is told what time is spent on") {
  Models models;
  const auto model = models.make(kSamples.front());
  Runtime runtime({.n_threads = 1});
  Session session = start(model, runtime);
  session.prefill(some_tokens(*model, 5));
  const std::string path = models.file("state");
  session.save(path);
  Profile profile;
  session.set_profile(&profile);
  session.load(path);
  session.decode(1);
  CHECK(profile.seconds(Zone::kFeedForward) > 0);
}

TEST_CASE("session: a saved state goes on as if nothing had happened") {
  Models models;
  for (const Sample& sample : kSamples) {
    CAPTURE(sample.name);
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
  }
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
  expect_error(ErrorCode::kBadArgument, "saved with keys and values in q8, this session keeps them in f32",
               [&] { other.load(path); });
  CHECK(other.position() == 0);
  Session same(model, runtime, {.kv_type = Session::saved_kv_type(path)});
  same.load(path);
  CHECK(same_bits(same.logits(), session.logits()));
  std::ofstream(path, std::ios::binary) << "TRRACEST, but no state";
  expect_error(ErrorCode::kBadFile, path, [&] { Session::saved_kv_type(path); });
  std::ofstream(path, std::ios::binary) << "";
  CHECK_THROWS_AS(Session::saved_kv_type(path), Error);
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
}  // namespace terrace::test
