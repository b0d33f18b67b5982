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

}  // namespace

Timings measure(std::vector<Session>& sessions, Runtime& runtime, const BandwidthProbe& bandwidth,
                const BenchTest& test, std::size_t repetitions, const std::function<void()>& tick) {
  const auto tokens = random_tokens(test.context(), sessions.front().model().config().vocab_size);
  const auto probe = [&] { return bandwidth.measure(runtime) / 1e9; };

  for (Session& session : sessions) time_once(session, tokens, test);
  Timings timings{.tokens_per_s = std::vector<std::vector<double>>(sessions.size()),
                  .read_bw_gb_per_s = {probe()}};
  for (std::size_t i = 0; i < repetitions; ++i) {
    for (std::size_t s = 0; s < sessions.size(); ++s) {
      timings.tokens_per_s[s].push_back(static_cast<double>(test.n_tokens) /
                                        time_once(sessions[s], tokens, test));
    }
    timings.read_bw_gb_per_s.push_back(probe());
    tick();
  }
  return timings;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace terrace::tools
