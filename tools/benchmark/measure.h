// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/machine_rates.h"
#include "engine/runtime.h"
#include "models/session.h"
#include "tools/benchmark/token_profile.h"

namespace terrace::tools {

/// One thing to time: "tg" decodes n_tokens one by one, "pp" feeds them in one prefill, after `depth` tokens.
/// Before the clock of "tg" starts one more is decoded: models take turns, so the first token finds the
/// caches full of what others read, which no later one does.
struct BenchTest {
  enum class Kind { kDecode, kPrefill } kind = Kind::kDecode;
  std::size_t depth = 0;
  std::size_t n_tokens = 0;

  const char* name() const noexcept { return kind == Kind::kDecode ? "tg" : "pp"; }
  /// Position of the first token that is timed.
  std::size_t first() const noexcept { return kind == Kind::kDecode ? depth + 1 : depth; }
  /// Positions it needs.
  std::size_t context() const noexcept { return first() + n_tokens; }
};

/// A session and the read rates it is compared with.
struct Subject {
  Session session;
  /// As large as what a token reads, for models that caches can hold in part; null where the probe of memory
  /// is enough.
  std::unique_ptr<BandwidthProbe> own_probe;
  ScatteredRows rows;  ///< that its tokens choose
};

/// The measurements of one subject.
struct Timing {
  std::vector<double> tokens_per_s;   ///< of every repetition
  std::vector<ReadRates> read_rates;  ///< after each repetition, of its own probe if it has one
  double phases_per_token = 0;        ///< that the team shared
  std::optional<TokenProfile> profile;

  /// Medians.
  ReadRates typical_read_rates() const;
};

/// Of all subjects, and the read bandwidth of memory seen between them.
struct Timings {
  std::vector<Timing> subjects;
  std::vector<double> read_bw_gb_per_s;  ///< before and after every repetition

  /// True if every subject was timed at least once.
  bool any() const noexcept { return !read_bw_gb_per_s.empty(); }
};

struct MeasureOptions {
  std::size_t repetitions = 5;
  bool profile = false;        ///< profile decode tests too, in repetitions of their own
  std::function<void()> tick;  ///< called after every repetition of a test
};

/// Times every test on all subjects in turn (A1 B1 A2 B2 A1 B1 ...), so that a change of the machine's speed
/// affects all of them, with a bandwidth probe before, between and after. The contexts are filled up to the
/// depths beforehand. One untimed repetition comes first: it reads the weights into memory, and phases are
/// counted in it. Profiles are taken afterwards, because profiling costs time: of as many repetitions, the
/// one of median length. `timings` receives the results of each test, even if Error{kCancelled} is thrown
/// after an interrupt.
void measure(std::vector<Subject>& subjects, Runtime& runtime, const BandwidthProbe& memory,
             std::span<const BenchTest> tests, const MeasureOptions& options, std::vector<Timings>& timings);

/// The middle value; the mean of the two middle ones for an even number. `values` is not empty.
double median(std::vector<double> values);

}  // namespace terrace::tools
