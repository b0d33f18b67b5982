// SPDX-License-Identifier: Apache-2.0
#include "models/speculation.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "engine/error.h"
#include "models/draw_next.h"

namespace terrace {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point begin, Clock::time_point end) noexcept {
  return std::chrono::duration<double>(end - begin).count();
}

}  // namespace

Speculation::Speculation(Session& session, Sampler sampler, std::unique_ptr<Draft> draft,
                         const Options& options)
    : session_(&session),
      sampler_(std::move(sampler)),
      draft_(std::move(draft)),
      options_(options),
      length_(options.most_guesses) {
  TERRACE_CHECK(options.most_guesses >= 1 && options.most_guesses < Session::kMostVerified, kBadArgument,
                fmt::format("speculation: expected 1 to {} drafted tokens per pass, found {}",
                            Session::kMostVerified - 1, options.most_guesses));
}

TokenId Speculation::feed(TokenId token) {
  if (n_ahead_ > 0 && token == drawn_[n_drawn_ - 1 - n_ahead_]) {
    --n_ahead_;
    return drawn_[n_drawn_ - 1 - n_ahead_];
  }
  settle();
  const std::size_t position = session_->position();
  const std::size_t room = session_->max_context() - position;
  std::size_t n = options_.adapt ? length_.next() : options_.most_guesses;
  n = std::min(n, room > 0 ? room - 1 : 0);
  if (n == 0) return feed_alone(token);
  const Clock::time_point start = Clock::now();
  pass_[0] = token;
  n = draft_->propose(*session_, token, std::span(pass_).subspan(1, n));
  if (n == 0) return feed_alone(token);
  const Clock::time_point drafted = Clock::now();
  verify(std::span(pass_).first(1 + n));
  session_->rewind(position + n_drawn_);
  n_ahead_ = n_drawn_ - 1;
  const Clock::time_point end = Clock::now();

  const double draft_seconds = seconds_between(start, drafted),
               verify_seconds = seconds_between(drafted, end);
  length_.record(n, n_ahead_, draft_seconds, verify_seconds);
  ++stats_.n_passes;
  stats_.n_drafted += n;
  stats_.n_right += n_ahead_;
  stats_.draft_seconds += draft_seconds;
  stats_.verify_seconds += verify_seconds;
  return drawn_[0];
}

/// Draws a token after each of the pass that plain decoding would have fed.
void Speculation::verify(std::span<const TokenId> pass) {
  const std::size_t position = session_->position();
  n_drawn_ = 0;
  const auto draw = [&](std::size_t row, std::span<const float> logits) {
    if (row != n_drawn_ || (row > 0 && drawn_[row - 1] != pass[row])) return;
    try {
      drawn_[row] = sampler_.sample(logits, session_->tokens().first(position + row + 1));
      ++n_drawn_;
    } catch (const Error&) {
      // Told when the token before this row is fed: until then the text is good. No later row is drawn.
    }
  };
  session_->verify(pass,
                   std::ref(draw));  // by reference: a copy would not fit into a function without memory
  if (n_drawn_ > 0) return;
  session_->rewind(position + 1);
  static_cast<void>(sampler_.sample(session_->logits(), session_->tokens()));  // throws again
}

TokenId Speculation::feed_alone(TokenId token) {
  const Clock::time_point start = Clock::now();
  const TokenId next = draw_next(*session_, sampler_, token);
  length_.record_plain(seconds_between(start, Clock::now()));
  ++stats_.n_passes;
  return next;
}

void Speculation::settle() {
  session_->rewind(position());
  n_ahead_ = 0;
}

}  // namespace terrace
