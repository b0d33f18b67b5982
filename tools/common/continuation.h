// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "models/sampler.h"
#include "models/session.h"
#include "models/speculation.h"
#include "tools/common/draft_arguments.h"
#include "tools/common/token_printer.h"

namespace terrace::tools {

inline constexpr std::int64_t kNoLimit = -1;

enum class StopReason { kLimit, kEndToken, kStopText, kContextFull, kInterrupted };

/// What follows the tokens of a session: drawn, printed and fed, one by one or by speculation.
class Continuation {
 public:
  /// The session must outlive it and be used through it only.
  Continuation(Session& session, const SamplerConfig& sampler, const DraftArguments& draft);

  /// At most `n_predict` tokens, or kNoLimit. With `keep_state` every token that is printed is also fed, the
  /// last one included, so that the session is what a longer text would go on from; one for which the context
  /// has no room is then not printed. Throws what Session, Sampler and TokenPrinter throw; n_printed() tells
  /// how far it came.
  StopReason run(TokenPrinter& printer, std::int64_t n_predict, bool keep_state);

  /// Leaves the session where the tokens that were fed end.
  void settle();

  std::int64_t n_printed() const noexcept { return n_printed_; }
  const SpeculationStats* speculation() const noexcept {
    return speculation_ ? &speculation_->stats() : nullptr;
  }

 private:
  TokenId feed(TokenId id);
  void feed_last(TokenId id);
  std::size_t position() const noexcept;

  Session& session_;
  Sampler sampler_;
  std::unique_ptr<Speculation> speculation_;
  std::int64_t n_printed_ = 0;
};

}  // namespace terrace::tools
