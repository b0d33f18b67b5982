// SPDX-License-Identifier: Apache-2.0
#include "models/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/support/allocation_counter.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden_file.h"

using namespace terrace;
using terrace::test::AllocationCounter;
using terrace::test::expect_error;
using terrace::test::read_golden_file;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// A chain whose every step changes nothing.
SamplerConfig plain() {
  SamplerConfig config;
  config.temperature = 1;
  config.top_k = 0;
  config.top_p = 1;
  config.min_p = 0;
  return config;
}

SamplerConfig greedy() {
  SamplerConfig config = plain();
  config.temperature = 0;
  return config;
}

SamplerConfig config_from(const nlohmann::json& json) {
  SamplerConfig config;
  set_sampler_order(config, json.at("order").get<std::string>());
  json.at("temperature").get_to(config.temperature);
  json.at("top_k").get_to(config.top_k);
  json.at("top_p").get_to(config.top_p);
  json.at("min_p").get_to(config.min_p);
  json.at("repeat_penalty").get_to(config.repeat_penalty);
  json.at("frequency_penalty").get_to(config.frequency_penalty);
  json.at("presence_penalty").get_to(config.presence_penalty);
  json.at("repeat_last_n").get_to(config.repeat_last_n);
  json.at("keep_ties").get_to(config.top_k_keeps_ties);
  return config;
}

std::vector<float> random_logits(std::size_t n, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(n);
  for (float& z : logits) z = normal(rng);
  return logits;
}

std::vector<TokenId> context_of(std::size_t n) { return std::vector<TokenId>(n, 0); }

}  // namespace

TEST_CASE("sampler: every chain draws from the oracle's distribution") {
  const auto golden = nlohmann::json::parse(read_golden_file("sampler.json"));
  REQUIRE(golden["cases"].size() > 70);
  for (const auto& expected : golden["cases"]) {
    CAPTURE(expected.dump());
    const auto logits = expected["logits"].get<std::vector<float>>();
    Sampler sampler(config_from(expected["config"]), static_cast<std::uint32_t>(logits.size()));
    const auto found = sampler.distribution(logits, expected["context"].get<std::vector<TokenId>>());
    REQUIRE(found.size() == expected["ids"].size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      CHECK(found[i].id == expected["ids"][i].get<TokenId>());
      CHECK(found[i].probability ==
            doctest::Approx(expected["probabilities"][i].get<double>()).epsilon(1e-6));
    }
  }
}

TEST_CASE("sampler: greedy takes the first of the largest logits") {
  Sampler sampler(greedy(), 5);
  CHECK(sampler.sample(std::vector<float>{1, 3, 3, -2, 0}, {}) == 1);
  CHECK(sampler.sample(std::vector<float>{kNaN, -kInfinity, kNaN, -5, kNaN}, {}) == 3);
  CHECK(sampler.sample(std::vector<float>{1, kInfinity, 0, kInfinity, 2}, {}) == 1);
}

TEST_CASE("sampler: the default chain with a temperature of zero is greedy too") {
  SamplerConfig config;
  config.temperature = 0;
  const auto logits = random_logits(1000, 1);
  Sampler sampler(config, 1000);
  CHECK(sampler.sample(logits, {}) == std::max_element(logits.begin(), logits.end()) - logits.begin());
}

TEST_CASE("sampler: chains that look at the largest logits only draw as if they looked at all of them") {
  std::vector<float> logits = random_logits(1000, 6);
  for (std::size_t i = 0; i < logits.size(); i += 3) logits[i] = std::round(logits[i]);  // ties
  for (const std::size_t i : {0, 64, 130}) logits[i] = kNaN;
  logits[500] = -kInfinity;
  for (const int top_k : {1, 2, 40, 63, 64, 65, 700, 998}) {
    for (const double temperature : {0.0, 0.7, 1.0}) {
      for (const double top_p : {0.9, 1.0}) {
        CAPTURE(top_k);
        CAPTURE(temperature);
        CAPTURE(top_p);
        SamplerConfig config = plain();
        config.top_k = top_k;
        config.temperature = temperature;
        config.top_p = top_p;
        Sampler sampler(config, 1000);
        config.presence_penalty = 1;  // of no token, but the chain must look at all of them
        config.repeat_last_n = 0;
        Sampler thorough(config, 1000);
        for (const std::size_t n : {1000, 650, 41}) {  // of the rest nothing can be drawn
          std::vector<float> some = logits;
          if (n == 650) some[70] = some[600] = kInfinity;
          std::fill(some.begin() + static_cast<std::ptrdiff_t>(n), some.end(), -kInfinity);
          const auto found = sampler.distribution(some, {});
          const auto expected = thorough.distribution(some, {});
          REQUIRE(found.size() == expected.size());
          for (std::size_t i = 0; i < found.size(); ++i) {
            CHECK(found[i].id == expected[i].id);
            CHECK(found[i].probability == expected[i].probability);
          }
        }
      }
    }
  }
}

TEST_CASE("sampler: NaN and -inf are never drawn, and a vector of nothing else is an error") {
  Sampler sampler(plain(), 4);
  for (std::size_t n = 0; n < 200; ++n) {
    const TokenId id = sampler.sample(std::vector<float>{kNaN, 0, -kInfinity, 1}, context_of(n));
    CHECK((id == 1 || id == 3));
  }
  expect_error(ErrorCode::kBadArgument, "all 4 logits are NaN or -inf", [&] {
    sampler.sample(std::vector<float>{kNaN, -kInfinity, kNaN, kNaN}, {});
  });
  CHECK(sampler.sample(std::vector<float>{-kInfinity, kInfinity, 0, 0}, {}) == 1);
}

TEST_CASE("sampler: frequencies of many draws follow the distribution (chi-square)") {
  const auto logits = random_logits(12, 4);
  SamplerConfig config = plain();
  config.seed = 99;
  Sampler sampler(config, 12);
  constexpr std::size_t kDraws = 20000;
  std::map<TokenId, double> counts;
  std::vector<TokenId> context;
  for (std::size_t i = 0; i < kDraws; ++i) {
    ++counts[sampler.sample(logits, context)];
    context.push_back(0);
  }
  double chi_square = 0;
  for (const auto& outcome : sampler.distribution(logits, {})) {
    const double expected = outcome.probability * kDraws;
    chi_square += (counts[outcome.id] - expected) * (counts[outcome.id] - expected) / expected;
  }
  CHECK(chi_square < 31.3);  // 11 degrees of freedom: exceeded once in a thousand
  CHECK(chi_square > 1.6);   // and fallen short of as seldom
}

TEST_CASE("sampler: a draw depends on seed, position and logits, not on what was drawn before") {
  const auto logits = random_logits(300, 2);
  SamplerConfig config = plain();
  config.seed = 7;
  Sampler used(config, 300);
  for (std::size_t n = 0; n < 50; ++n) used.sample(random_logits(300, 50 + n), context_of(n));
  Sampler fresh(config, 300);
  const Sampler copy = used;
  std::vector<TokenId> drawn;
  for (std::size_t n = 0; n < 100; ++n) {
    drawn.push_back(fresh.sample(logits, context_of(n)));
    CHECK(used.sample(logits, context_of(n)) == drawn.back());
    CHECK(Sampler(copy).sample(logits, context_of(n)) == drawn.back());
  }
  config.seed = 8;
  Sampler other(config, 300);
  std::size_t n_equal = 0;
  for (std::size_t n = 0; n < 100; ++n) n_equal += other.sample(logits, context_of(n)) == drawn[n];
  CHECK(n_equal < 50);
}

TEST_CASE("sampler: draws of known seeds and positions stay what they are") {
  const std::vector<float> flat(1000, 0.0F);
  const auto draw = [&](std::uint64_t seed, std::size_t position) {
    SamplerConfig config = plain();
    config.seed = seed;
    return Sampler(config, 1000).sample(flat, context_of(position));
  };
  // From the oracle's threefry: floor(1000 * uniform), counter (0, position), key of the seed.
  CHECK(draw(0, 0) == 418);
  CHECK(draw(0, 1) == 216);
  CHECK(draw(1, 0) == 118);
  CHECK(draw(0x123456789ABCDEFULL, 77) == 265);
}

TEST_CASE("sampler: nothing is allocated after construction, whatever the chain does") {
  constexpr std::uint32_t kVocab = 5000;
  const auto logits = random_logits(kVocab, 3);
  std::vector<TokenId> context(200);
  for (std::size_t i = 0; i < context.size(); ++i) context[i] = static_cast<TokenId>(i * 7 % kVocab);
  for (const char* order : {"llama.cpp", "hf", "top_p", "min_p,temperature", ""}) {
    for (const double temperature : {0.0, 0.9}) {
      SamplerConfig config;
      set_sampler_order(config, order);
      config.temperature = temperature;
      config.repeat_penalty = 1.1;
      Sampler sampler(config, kVocab);
      const AllocationCounter counter;
      sampler.sample(logits, context);
      CHECK(counter.allocations() == 0);
    }
  }
}

TEST_CASE("sampler: orders read from text") {
  SamplerConfig config;
  CHECK(describe_sampler(config) == "top_k 40 > top_p 0.95 > min_p 0.05 > temperature 0.8");
  config.repeat_penalty = 1.1;
  set_sampler_order(config, "hf");
  CHECK(describe_sampler(config) ==
        "penalties repeat 1.1 frequency 0 presence 0 last -1 > temperature 0.8 > top_k 40 with ties > top_p "
        "0.95 > "
        "min_p 0.05");
  config.temperature = 0;
  set_sampler_order(config, "temperature");
  CHECK(describe_sampler(config) == "greedy");
  set_sampler_order(config, "");
  CHECK(describe_sampler(config) == "the plain softmax");
  expect_error(ErrorCode::kBadArgument, "'mirostat'", [&] { set_sampler_order(config, "top_k,mirostat"); });
  expect_error(ErrorCode::kBadArgument, "twice", [&] { set_sampler_order(config, "top_k,top_k"); });
}

TEST_CASE("sampler: bad settings and arguments are refused") {
  const auto refused = [](const std::string& name, const auto& change) {
    SamplerConfig config;
    change(config);
    expect_error(ErrorCode::kBadArgument, name, [&] { Sampler sampler(config, 8); });
  };
  refused("temperature", [](SamplerConfig& c) { c.temperature = 1e-9; });
  refused("temperature", [](SamplerConfig& c) { c.temperature = kNaN; });
  refused("top_p", [](SamplerConfig& c) { c.top_p = 1.5; });
  refused("min_p", [](SamplerConfig& c) { c.min_p = -0.1; });
  refused("repeat_penalty", [](SamplerConfig& c) { c.repeat_penalty = 0; });
  refused("frequency_penalty", [](SamplerConfig& c) { c.frequency_penalty = kInfinity; });
  refused("repeat_last_n", [](SamplerConfig& c) { c.repeat_last_n = -2; });
  refused("twice", [](SamplerConfig& c) { c.order = {SamplerStep::kTopK, SamplerStep::kTopK}; });

  SamplerConfig config;
  config.repeat_penalty = 1.1;
  Sampler sampler(config, 8);
  expect_error(ErrorCode::kBadArgument, "expected 8 logits, found 7",
               [&] { sampler.sample(std::vector<float>(7), {}); });
  for (const TokenId id : {-1, 8}) {
    expect_error(ErrorCode::kBadToken, "outside the vocabulary 0 .. 7", [&] {
      sampler.sample(std::vector<float>(8), std::vector<TokenId>{0, id});
    });
  }
}
