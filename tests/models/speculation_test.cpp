// SPDX-License-Identifier: Apache-2.0
// Speculation's promise: the text, and the state it leaves, are those of plain decoding, whatever the draft.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "models/speculation.h"
#include "tests/support/allocation_counter.h"
#include "tests/support/session_samples.h"

namespace terrace::test {
namespace {

constexpr std::size_t kPrompt = 7;
constexpr std::size_t kText = kLength;

/// The tokens of the text, some of them wrong: every period-th one; 0: none.
class KnownDraft final : public Draft {
 public:
  KnownDraft(std::vector<TokenId> text, std::size_t period, TokenId vocab_size)
      : text_(std::move(text)), period_(period), vocab_size_(vocab_size) {}

  std::size_t propose(Session& session, TokenId token, std::span<TokenId> guesses) override {
    const std::size_t next = session.position() + 1 - kPrompt;  // of the text
    CHECK(text_[next - 1] == token);
    std::size_t n = 0;
    for (; n < guesses.size() && next + n < text_.size(); ++n) {
      const bool wrong = period_ > 0 && n_ % period_ == period_ - 1;
      guesses[n] = wrong ? (text_[next + n] + 1) % vocab_size_ : text_[next + n];
      ++n_;
    }
    return n;
  }

 private:
  std::vector<TokenId> text_;
  std::size_t period_;
  TokenId vocab_size_;
  std::size_t n_ = 0;
};

SamplerConfig greedy() {
  SamplerConfig config;
  config.temperature = 0;
  return config;
}

SamplerConfig sampled() {
  SamplerConfig config;
  config.temperature = 1.5;
  config.repeat_penalty = 1.3;  // looks at the context, guesses included
  config.seed = 5;
  return config;
}

/// What plain decoding makes of a prompt: kText tokens, of which the last is not fed.
std::vector<TokenId> plain_text(Session& session, const SamplerConfig& config) {
  Sampler sampler(config, session.model().config().vocab_size);
  session.prefill(some_tokens(session.model(), kPrompt));
  std::vector<TokenId> text = {sampler.sample(session.logits(), session.tokens())};
  while (text.size() < kText) {
    const std::span<const float> logits = session.decode(text.back());
    text.push_back(sampler.sample(logits, session.tokens()));
  }
  return text;
}

/// The same by speculation, which is left settled.
std::vector<TokenId> speculated_text(Session& session, const SamplerConfig& config,
                                     std::unique_ptr<Draft> draft, const Speculation::Options& options,
                                     SpeculationStats* stats = nullptr) {
  Sampler sampler(config, session.model().config().vocab_size);
  session.prefill(some_tokens(session.model(), kPrompt));
  Speculation speculation(session, sampler, std::move(draft), options);
  std::vector<TokenId> text = {sampler.sample(session.logits(), session.tokens())};
  while (text.size() < kText) {
    CHECK(speculation.position() == kPrompt + text.size() - 1);
    text.push_back(speculation.feed(text.back()));
  }
  speculation.settle();
  if (stats) *stats = speculation.stats();
  return text;
}

TEST_CASE("speculation: right and wrong guesses give the text and the state of plain decoding") {
  for_samples([](Models& models, const Sample& sample) {
    for (const DType dtype : {DType::kF32, DType::kQ8}) {
      const auto model = models.make(sample, dtype);
      const auto vocab_size = static_cast<TokenId>(model->config().vocab_size);
      Runtime runtime({.n_threads = 2});
      for (const SamplerConfig& config : {greedy(), sampled()}) {
        Session plain = start(model, runtime);
        const std::vector<TokenId> expected = plain_text(plain, config);
        plain.save(models.file("plain"));
        for (const std::size_t period : {0, 1, 2, 3, 7}) {
          CAPTURE(period);
          const std::size_t most = 1 + period * 5 % (Session::kMostVerified - 1);
          Session session = start(model, runtime);
          SpeculationStats stats;
          CHECK(speculated_text(session, config, std::make_unique<KnownDraft>(expected, period, vocab_size),
                                {.most_guesses = most, .adapt = false}, &stats) == expected);
          CHECK(same_bits(session.logits(), plain.logits()));
          session.save(models.file("speculated"));
          CHECK(models.bytes("speculated") == models.bytes("plain"));
          if (period == 0) CHECK(stats.n_right >= stats.n_drafted - most);  // the last are cut by the end
          if (period == 1) CHECK(stats.n_right == 0);
        }
      }
    }
  });
}

TEST_CASE("speculation: nested widths and the context itself as drafts") {
  for_samples([](Models& models, const Sample& sample) {
    const auto model = models.make(sample);
    Runtime runtime({.n_threads = 2});
    const ModelConfig& config = model->config();
    const std::vector<std::uint32_t>& widths = config.decoder.ff.widths;
    const std::vector<std::uint32_t> full(config.decoder.n_layers, config.d_ff);
    for (const SamplerConfig& how : {greedy(), sampled()}) {
      Session plain = start(model, runtime);
      const std::vector<TokenId> expected = plain_text(plain, how);
      const Sampler sampler(how, config.vocab_size);
      for (const std::size_t most : {1, 4, 15}) {
        CAPTURE(most);
        for (const bool adapt : {false, true}) {
          const Speculation::Options options{.most_guesses = most, .adapt = adapt};
          Session session = start(model, runtime);
          CHECK(speculated_text(session, how, std::make_unique<LookupDraft>(), options) == expected);
          CHECK(same_bits(session.logits(), plain.logits()));
          if (widths.empty()) continue;
          Session nested = start(model, runtime);
          CHECK(speculated_text(nested, how,
                                std::make_unique<NestedDraft>(nested, std::span(widths).first(1), sampler),
                                options) == expected);
          CHECK(same_bits(nested.logits(), plain.logits()));
          CHECK(std::equal(nested.widths().begin(), nested.widths().end(), full.begin(), full.end()));
        }
      }
      if (widths.empty()) continue;
      // A draft that is the model itself is always right.
      Session session = start(model, runtime);
      SpeculationStats stats;
      CHECK(speculated_text(session, how, std::make_unique<NestedDraft>(session, full, sampler),
                            {.most_guesses = 3, .adapt = false}, &stats) == expected);
      CHECK(stats.n_right == stats.n_drafted);
    }
  });
}

TEST_CASE("speculation: at the end of the context it does what plain decoding does") {
  Models models;
  const auto model = models.make(kSamples[1]);
  Runtime runtime({.n_threads = 1});
  constexpr std::size_t kContext = 40;
  Session plain(model, runtime, {.max_context = 200});
  const std::vector<TokenId> expected = plain_text(plain, greedy());
  Session session(model, runtime, {.max_context = kContext});
  Sampler sampler(greedy(), model->config().vocab_size);
  session.prefill(some_tokens(*model, kPrompt));
  Speculation speculation(session, sampler, std::make_unique<KnownDraft>(expected, 5, 64),
                          {.most_guesses = 6, .adapt = false});
  std::vector<TokenId> text = {sampler.sample(session.logits(), session.tokens())};
  while (speculation.position() < kContext) text.push_back(speculation.feed(text.back()));
  CHECK(std::equal(text.begin(), text.end(), expected.begin()));
  CHECK_THROWS_AS(speculation.feed(text.back()), Error);
  CHECK(speculation.position() == kContext);
}

TEST_CASE("speculation: another token than the drawn one may be fed") {
  Models models;
  const auto model = models.make(kSamples[1]);
  Runtime runtime({.n_threads = 1});
  Session guessed = start(model, runtime), session = start(model, runtime), plain = start(model, runtime);
  const std::vector<TokenId> expected = plain_text(guessed, greedy());
  Sampler sampler(greedy(), model->config().vocab_size);
  session.prefill(some_tokens(*model, kPrompt));
  plain.prefill(some_tokens(*model, kPrompt));
  Speculation speculation(session, sampler, std::make_unique<LookupDraft>(),
                          {.most_guesses = 4, .adapt = false});
  TokenId next = expected[0];
  for (std::size_t i = 0; i < 60; ++i) {
    if (i % 7 == 6) next = (next + 1) % 64;
    const std::span<const float> logits = plain.decode(next);
    const TokenId drawn = sampler.sample(logits, plain.tokens());
    next = speculation.feed(next);
    CHECK(next == drawn);
  }
  speculation.settle();
  CHECK(same_bits(session.logits(), plain.logits()));
}

TEST_CASE("speculation: a round allocates nothing") {
  Models models;
  for (const Sample& sample : kSamples) {
    const auto model = models.make(sample);
    const std::vector<std::uint32_t>& widths = model->config().decoder.ff.widths;
    if (widths.empty()) continue;
    CAPTURE(sample.name);
    Runtime runtime({.n_threads = 1});
    Session session = start(model, runtime);
    const auto region = session.hold();
    const Sampler sampler(greedy(), model->config().vocab_size);
    session.prefill(some_tokens(*model, kPrompt));
    Speculation speculation(session, sampler,
                            std::make_unique<NestedDraft>(session, std::span(widths).first(1), sampler),
                            {.most_guesses = 3, .adapt = false});
    TokenId next = speculation.feed(1);
    const AllocationCounter counter;
    for (std::size_t i = 0; i < 60; ++i) next = speculation.feed(next);
    CHECK(counter.allocations() == 0);
  }
}

TEST_CASE("speculation: what cannot be is refused") {
  Models models;
  const auto model = models.make(kSamples[1]);
  Runtime runtime({.n_threads = 1});
  Session session = start(model, runtime);
  const Sampler sampler(greedy(), model->config().vocab_size);
  const auto with = [&](std::size_t most) {
    return Speculation(session, sampler, std::make_unique<LookupDraft>(), {.most_guesses = most});
  };
  CHECK_THROWS_AS(with(0), Error);
  CHECK_THROWS_AS(with(Session::kMostVerified), Error);
  const std::uint32_t untrained[] = {24};
  CHECK_THROWS_AS(NestedDraft(session, untrained, sampler), Error);
  CHECK_NOTHROW(NestedDraft(session, untrained, sampler, true));
  CHECK(session.widths()[0] == model->config().d_ff);
}

TEST_CASE("draft length: as many as pay by what was measured") {
  DraftLength length(8);
  CHECK(length.next() == 0);  // a token alone first
  for (int i = 0; i < 10; ++i) length.record_plain(1.0);
  SUBCASE("right guesses that cost little") {
    std::size_t n_tokens = 0, n_alone = 0;
    for (int i = 0; i < 100; ++i) {
      const std::size_t n = length.next();
      n > 0 ? length.record(n, n, 0.01, 1.0 + 0.05 * static_cast<double>(n)) : length.record_plain(1.0);
      n_tokens += n + 1;
      n_alone += n > 0 ? 0 : 1;
    }
    CHECK(n_tokens > 700);
    CHECK(n_alone >= 3);  // what a token alone takes may change, too
    CHECK(n_alone <= 8);
  }
  SUBCASE("a token alone that seemed slow because it came first") {
    for (int i = 0; i < 4; ++i) length.record_plain(100.0);
    std::size_t n_drafts = 0;
    for (int i = 0; i < 200; ++i) {
      const std::size_t n = length.next();
      n > 0 ? length.record(n, n / 2, 0.8 * static_cast<double>(n), 1.0 + static_cast<double>(n))
            : length.record_plain(1.0);
      n_drafts += n > 0 ? 1 : 0;
    }
    CHECK(n_drafts < 40);
  }
  SUBCASE("wrong guesses") {
    for (int i = 0; i < 40; ++i) {
      const std::size_t n = length.next();
      n > 0 ? length.record(n, 0, 0.1, 1.0 + 0.2 * static_cast<double>(n)) : length.record_plain(1.0);
    }
    std::size_t n_tried = 0;
    for (int i = 0; i < 300; ++i) {
      const std::size_t n = length.next();
      n_tried += n > 0 ? 1 : 0;
      n > 0 ? length.record(n, 0, 0.1, 1.0 + 0.2 * static_cast<double>(n)) : length.record_plain(1.0);
    }
    CHECK(n_tried >= 1);  // texts change
    CHECK(n_tried <= 3);
  }
  SUBCASE("half of them right, passes that cost by the token") {
    for (int i = 0; i < 60; ++i) {
      const std::size_t n = length.next();
      n > 0 ? length.record(n, n / 2, 0.3 * static_cast<double>(n), 1.0 + 0.1 * static_cast<double>(n))
            : length.record_plain(1.0);
    }
    CHECK(length.next() <= 3);
  }
}

}  // namespace
}  // namespace terrace::test
