// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/bandwidth.h"
#include "engine/runtime.h"
#include "models/session.h"
#include "tools/benchmark/token_profile.h"

namespace terrace::tools {

/// One thing to time: "tg" decodes n_tokens one by one, "pp" feeds them in one prefill, after `depth` tokens.
struct BenchTest {
  enum class Kind { kDecode, kPrefill } kind = Kind::kDecode;
  std::size_t depth = 0;
  std::size_t n_tokens = 0;

  const char* name() const noexcept { return kind == Kind::kDecode ? "tg" : "pp"; }
  /// Positions it needs.
  std::size_t context() const noexcept { return depth + n_tokens; }
};

/// A session and what it is held against.
struct Subject {
  Session session;
  /// As large as what a token reads, for models that caches can hold in part; null where the probe of memory
  /// serves.
  std::unique_ptr<BandwidthProbe> own_probe;
};

/// What one subject gave.
struct Timing {
  std::vector<double> tokens_per_s;          ///< of every repetition
  std::vector<double> own_read_bw_gb_per_s;  ///< of its own probe, after each repetition
  double phases_per_token = 0;               ///< that the team shared
  std::optional<TokenProfile> profile;
};

/// Of all subjects, and the read bandwidth of memory seen between them.
struct Timings {
  std::vector<Timing> subjects;
  std::vector<double> read_bw_gb_per_s;  ///< [repetition + 1]
};

struct MeasureOptions {
  std::size_t repetitions = 5;
  bool profile = false;        ///< profile decode tests too, in repetitions of their own
  std::function<void()> tick;  ///< called after every repetition
};

/// Times `test` on all subjects in turn (A B A B ...), so that a change of the machine's speed meets all of
/// them, with a bandwidth probe before, between and after the repetitions. One untimed repetition comes
/// first: it reads the weights into memory and fills the context up to the depth; the phases are counted in
/// it. Profiles are taken afterwards, because looking costs time: of as many repetitions the one of median
/// length. Throws Error{kCancelled} after an interrupt.
Timings measure(std::vector<Subject>& subjects, Runtime& runtime, const BandwidthProbe& memory,
                const BenchTest& test, const MeasureOptions& options);

/// The middle value; the mean of the two middle ones for an even number. `values` is not empty.
double median(std::vector<double> values);

}  // namespace terrace::tools
