// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>

#include "models/draft.h"
#include "models/draft_length.h"
#include "models/sampler.h"
#include "models/session.h"

namespace terrace {

struct SpeculationStats {
  std::size_t n_passes = 0;   ///< of the full width, with and without draft
  std::size_t n_drafted = 0;  ///< guesses
  std::size_t n_right = 0;    ///< guesses that the text has
  double draft_seconds = 0;
  double verify_seconds = 0;  ///< of passes with a draft
};

/// Speculative decoding: a draft guesses tokens, the model reads all of them in one pass, and the guesses up
/// to the first one that the sampler does not draw are kept. Every token is drawn from the full width's
/// logits, which are the bits of plain decoding, with the random number of its position: so the text is that
/// of plain decoding, whatever the draft. The gain: weights are read once per pass.
/// Source: Leviathan et al. 2023, with the sampler's own draw in place of the acceptance test. Allocates
/// nothing after construction.
class Speculation {
 public:
  struct Options {
    std::size_t most_guesses = 8;  ///< of one pass, 1 to Session::kMostVerified - 1
    bool adapt = true;             ///< fewer, or none, where that is faster; false: always most_guesses
  };

  /// The session must outlive it. Throws Error{kBadArgument} for a number of guesses out of range.
  Speculation(Session& session, Sampler sampler, std::unique_ptr<Draft> draft, const Options& options);

  /// Feeds one token and returns the one that the sampler draws after it. The session may run ahead of the
  /// tokens fed here: what it holds beyond position() is what feed() will return next. A token other than the
  /// returned one is allowed and takes the tokens ahead back. Throws as Session::decode(), Sampler::sample().
  TokenId feed(TokenId token);
  /// Tokens fed.
  std::size_t position() const noexcept { return session_->position() - n_ahead_; }
  /// Takes the session back to position(): it is then as after plain decoding.
  void settle();

  const SpeculationStats& stats() const noexcept { return stats_; }

 private:
  TokenId feed_alone(TokenId token);
  void verify(std::span<const TokenId> pass);

  Session* session_;
  Sampler sampler_;
  std::unique_ptr<Draft> draft_;
  Options options_;
  DraftLength length_;
  SpeculationStats stats_;
  std::array<TokenId, Session::kMostVerified> pass_{};   // the token fed, then guesses
  std::array<TokenId, Session::kMostVerified> drawn_{};  // drawn_[i] follows pass_[i]
  std::size_t n_drawn_ = 0;
  std::size_t n_ahead_ = 0;  // tokens that the session has and the caller has not fed
};

}  // namespace terrace
