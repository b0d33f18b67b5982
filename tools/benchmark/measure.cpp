// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmark/measure.h"

#include <algorithm>
#include <chrono>
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

/// Seconds for the timed part.
double time_once(Session& session, std::span<const TokenId> tokens, const BenchTest& test) {
  go_to_depth(session, tokens, test.depth);
  const auto timed = tokens.subspan(test.depth, test.n_tokens);
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
    go_to_depth(session, tokens, test.depth);
    profiles.push_back(
        profile_tokens(session, runtime, test.n_tokens, [&] { time_once(session, tokens, test); }));
  }
  const auto middle = profiles.begin() + static_cast<std::ptrdiff_t>(profiles.size() / 2);
  std::nth_element(profiles.begin(), middle, profiles.end(),
                   [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
  return *middle;
}

}  // namespace

Timings measure(std::vector<Subject>& subjects, Runtime& runtime, const BandwidthProbe& memory,
                const BenchTest& test, const MeasureOptions& options) {
  const auto tokens = random_tokens(test.context(), subjects.front().session.model().config().vocab_size);
  const auto probe = [&](const BandwidthProbe& of) { return of.measure(runtime) / 1e9; };

  Timings timings{.subjects = std::vector<Timing>(subjects.size()), .read_bw_gb_per_s = {}};
  for (std::size_t s = 0; s < subjects.size(); ++s) {
    Session& session = subjects[s].session;
    go_to_depth(session, tokens, test.depth);
    const auto warm_up = [&] { time_once(session, tokens, test); };
    timings.subjects[s].phases_per_token = profile_tokens(session, runtime, test.n_tokens, warm_up).phases;
  }
  timings.read_bw_gb_per_s.push_back(probe(memory));
  for (std::size_t i = 0; i < options.repetitions; ++i) {
    for (std::size_t s = 0; s < subjects.size(); ++s) {
      const double seconds = time_once(subjects[s].session, tokens, test);
      timings.subjects[s].tokens_per_s.push_back(static_cast<double>(test.n_tokens) / seconds);
      if (const auto& own = subjects[s].own_probe) {
        timings.subjects[s].own_read_bw_gb_per_s.push_back(probe(*own));
      }
    }
    timings.read_bw_gb_per_s.push_back(probe(memory));
    options.tick();
  }
  if (options.profile && test.kind == BenchTest::Kind::kDecode) {
    for (std::size_t s = 0; s < subjects.size(); ++s) {
      timings.subjects[s].profile =
          typical_profile(subjects[s].session, runtime, tokens, test, options.repetitions);
    }
  }
  return timings;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace terrace::tools
