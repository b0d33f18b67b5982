// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmark/measure.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>

#include "models/model.h"
#include "tools/common/interrupt.h"

namespace terrace::tools {
namespace {

/// The same tokens for every session and every run: which units a sparse layer picks depends on them.
std::vector<TokenId> random_tokens(std::size_t n, std::uint32_t vocab_size) {
  std::mt19937_64 random(1);
  std::vector<TokenId> ids(n);
  for (TokenId& id : ids) id = static_cast<TokenId>(random() % vocab_size);
  return ids;
}

bool go_on(std::size_t, std::size_t) { return !Interrupt::requested(); }

/// Brings a session to `depth` tokens, reusing what it has.
void go_to_depth(Session& session, std::span<const TokenId> tokens, std::size_t depth) {
  if (session.position() > depth) session.rewind(depth);
  if (session.position() < depth) {
    session.prefill(tokens.subspan(session.position(), depth - session.position()), go_on);
  }
}

/// [test][subject] forks of the subjects' sessions at the depths of the tests: a context is filled once, and
/// forks share it.
std::vector<std::vector<Session>> sessions_at_depths(std::vector<Subject>& subjects,
                                                     std::span<const TokenId> tokens,
                                                     std::span<const BenchTest> tests) {
  std::vector<std::size_t> by_depth(tests.size());
  std::iota(by_depth.begin(), by_depth.end(), std::size_t{0});
  std::ranges::stable_sort(by_depth, {}, [&](std::size_t t) { return tests[t].depth; });
  std::vector<std::vector<Session>> sessions(tests.size());
  for (const std::size_t t : by_depth) {
    for (Subject& subject : subjects) {
      go_to_depth(subject.session, tokens, tests[t].depth);
      sessions[t].push_back(subject.session.fork());
    }
  }
  return sessions;
}

/// Brings a session to where the timed part begins.
void get_ready(Session& session, std::span<const TokenId> tokens, const BenchTest& test) {
  go_to_depth(session, tokens, test.depth);
  if (test.kind == BenchTest::Kind::kDecode) session.decode(tokens[test.depth]);
}

/// Seconds for the timed part.
double time_once(Session& session, std::span<const TokenId> tokens, const BenchTest& test) {
  const auto timed = tokens.subspan(test.first(), test.n_tokens);
  const auto region = session.hold();
  const auto start = std::chrono::steady_clock::now();
  if (test.kind == BenchTest::Kind::kPrefill) {
    session.prefill(timed, go_on);
  } else {
    for (const TokenId id : timed) {
      Interrupt::check();
      session.decode(id);
    }
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The profile of median length out of `repetitions`.
TokenProfile typical_profile(Session& session, Runtime& runtime, std::span<const TokenId> tokens,
                             const BenchTest& test, std::size_t repetitions) {
  std::vector<TokenProfile> profiles;
  for (std::size_t i = 0; i < repetitions; ++i) {
    get_ready(session, tokens, test);
    profiles.push_back(
        profile_tokens(session, runtime, test.n_tokens, [&] { time_once(session, tokens, test); }));
  }
  const auto middle = profiles.begin() + static_cast<std::ptrdiff_t>(profiles.size() / 2);
  std::nth_element(profiles.begin(), middle, profiles.end(),
                   [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
  return *middle;
}

}  // namespace

void measure(std::vector<Subject>& subjects, Runtime& runtime, const BandwidthProbe& memory,
             std::span<const BenchTest> tests, const MeasureOptions& options, std::vector<Timings>& timings) {
  std::size_t longest = 0;
  for (const BenchTest& test : tests) longest = std::max(longest, test.context());
  const auto tokens = random_tokens(longest, subjects.front().session.model().config().vocab_size);
  const auto memory_gb_per_s = [&] { return memory.measure(runtime) / 1e9; };
  const auto read_rates = [&](const Subject& subject) {
    return measure_read_rates(runtime, subject.own_probe ? *subject.own_probe : memory, memory, subject.rows);
  };
  auto sessions = sessions_at_depths(subjects, tokens, tests);

  timings.assign(tests.size(), {});
  for (std::size_t t = 0; t < tests.size(); ++t) {
    timings[t].subjects.resize(subjects.size());
    for (std::size_t s = 0; s < subjects.size(); ++s) {
      Session& session = sessions[t][s];
      get_ready(session, tokens, tests[t]);
      const auto warm_up = [&] { time_once(session, tokens, tests[t]); };
      timings[t].subjects[s].phases_per_token =
          profile_tokens(session, runtime, tests[t].n_tokens, warm_up).phases;
    }
  }
  double before = memory_gb_per_s();
  for (std::size_t i = 0; i < options.repetitions; ++i) {
    for (std::size_t t = 0; t < tests.size(); ++t) {
      for (std::size_t s = 0; s < subjects.size(); ++s) {
        Timing& timing = timings[t].subjects[s];
        get_ready(sessions[t][s], tokens, tests[t]);
        const double seconds = time_once(sessions[t][s], tokens, tests[t]);
        timing.tokens_per_s.push_back(static_cast<double>(tests[t].n_tokens) / seconds);
        timing.read_rates.push_back(read_rates(subjects[s]));
      }
      const double after = memory_gb_per_s();
      timings[t].read_bw_gb_per_s.insert(timings[t].read_bw_gb_per_s.end(), {before, after});
      before = after;
      options.tick();
    }
  }
  for (std::size_t t = 0; options.profile && t < tests.size(); ++t) {
    if (tests[t].kind != BenchTest::Kind::kDecode) continue;
    for (std::size_t s = 0; s < subjects.size(); ++s) {
      timings[t].subjects[s].profile =
          typical_profile(sessions[t][s], runtime, tokens, tests[t], options.repetitions);
    }
  }
}

ReadRates Timing::typical_read_rates() const {
  const auto typical = [this](double ReadRates::*rate) {
    std::vector<double> values;
    for (const ReadRates& rates : read_rates) values.push_back(rates.*rate);
    return median(std::move(values));
  };
  return {typical(&ReadRates::team), typical(&ReadRates::leader), typical(&ReadRates::scattered)};
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace terrace::tools
