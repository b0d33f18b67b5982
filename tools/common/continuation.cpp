// SPDX-License-Identifier: Apache-2.0
#include "tools/common/continuation.h"

#include "models/draw_next.h"
#include "tools/common/interrupt.h"

namespace terrace::tools {

Continuation::Continuation(Session& session, const SamplerConfig& sampler, const DraftArguments& draft)
    : session_(session),
      sampler_(sampler, session.model().config().vocab_size),
      speculation_(draft.open(session, sampler_)) {}

StopReason Continuation::run(TokenPrinter& printer, std::int64_t n_predict, bool keep_state) {
  const auto region = session_.hold();
  const TokenId end = session_.model().config().tokens.end;
  TokenId next = sampler_.sample(session_.logits(), session_.tokens());
  while (true) {
    if (Interrupt::requested()) return StopReason::kInterrupted;
    if (n_printed_ == n_predict) return StopReason::kLimit;
    const TokenId id = next;
    if (id == end) return StopReason::kEndToken;
    const bool full = position() == session_.max_context();
    if (full && keep_state) return StopReason::kContextFull;
    const bool go_on = printer.print(id);
    ++n_printed_;
    if (!go_on) return StopReason::kStopText;
    const bool last = n_printed_ == n_predict;
    if (last && keep_state) feed_last(id);
    if (last) return StopReason::kLimit;
    if (full) return StopReason::kContextFull;
    next = feed(id);
  }
}

void Continuation::settle() {
  if (speculation_) speculation_->settle();
}

TokenId Continuation::feed(TokenId id) {
  return speculation_ ? speculation_->feed(id) : draw_next(session_, sampler_, id);
}

/// Where nothing is drawn after it.
void Continuation::feed_last(TokenId id) {
  settle();
  session_.decode(id);
}

std::size_t Continuation::position() const noexcept {
  return speculation_ ? speculation_->position() : session_.position();
}

}  // namespace terrace::tools
