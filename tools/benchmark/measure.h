// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/bandwidth.h"
#include "engine/runtime.h"
#include "models/session.h"

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

/// Tokens per second of every repetition, per session, and the read bandwidth seen between them.
struct Timings {
  std::vector<std::vector<double>> tokens_per_s;  ///< [session][repetition]
  std::vector<double> read_bw_gb_per_s;           ///< [repetition + 1]
};

/// Times `test` on all sessions in turn (A B A B ...), so that a change of the machine's speed meets all of
/// them, with a bandwidth probe before, between and after the repetitions. One untimed repetition comes
/// first: it reads the weights into memory and fills the context up to the depth. `tick` is called after
/// every repetition. Throws Error{kCancelled} after an interrupt.
Timings measure(std::vector<Session>& sessions, Runtime& runtime, const BandwidthProbe& bandwidth,
                const BenchTest& test, std::size_t repetitions, const std::function<void()>& tick);

/// The middle value; the mean of the two middle ones for an even number. `values` is not empty.
double median(std::vector<double> values);

}  // namespace terrace::tools
