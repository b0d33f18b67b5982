// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>

#include "models/session.h"

namespace terrace {

/// How many tokens to draft next, from what earlier rounds accepted and took:
///
///   tokens per round = (1 - a^(n+1)) / (1 - a)        a = share of the guesses that were right
///   seconds          = n * draft + verify(n + 1)
///
/// The number with the most tokens per second wins; 0, plain decoding, if drafting does not pay. Then a short
/// draft is tried again, at growing intervals, because texts change. The number changes no token, only when
/// tokens come. Source: Leviathan et al. 2023, sec. 3.3, with a measured cost per pass.
class DraftLength {
 public:
  explicit DraftLength(std::size_t most) noexcept : most_(most) {}

  std::size_t next() const noexcept;
  /// A round of n_guesses guesses, of which the first n_right were right.
  void record(std::size_t n_guesses, std::size_t n_right, double draft_seconds,
              double verify_seconds) noexcept;
  /// A token without draft.
  void record_plain(double seconds) noexcept;

 private:
  /// Tokens without draft before the first one: the first token of a text comes with cold caches.
  static constexpr std::size_t kAlone = 3;
  /// Length of the first draft, and of one that is tried again.
  static constexpr std::size_t kShort = 2;
  /// Tokens without draft before one is tried again, at first and at most.
  static constexpr std::size_t kFirstWait = 16;
  static constexpr std::size_t kLongestWait = 256;

  /// Rounds with a draft before a token alone is timed again, at first and at most.
  static constexpr std::size_t kFirstRounds = 2;
  static constexpr std::size_t kMostRounds = 32;

  /// Seconds that something takes undisturbed: the least so far, which is slowly forgotten.
  class Duration {
   public:
    void add(double seconds) noexcept {
      least_ = known_ && seconds > least_ ? least_ + 0.1 * (seconds - least_) : seconds;
      known_ = true;
    }
    bool known() const noexcept { return known_; }
    double value() const noexcept { return least_; }

   private:
    double least_ = 0;
    bool known_ = false;
  };

  double verify_seconds(std::size_t n_tokens) const noexcept;
  double tokens_per_second(std::size_t n_guesses) const noexcept;
  std::size_t best() const noexcept;

  std::size_t most_;
  std::size_t n_alone_ = 0;  // tokens since the last draft
  std::size_t wait_ = kAlone;
  std::size_t n_rounds_ = 0;  // since the last token without draft
  std::size_t most_rounds_ = kFirstRounds;
  double right_ = 0.5;                                       // share of the guesses
  Duration guess_;                                           // of one
  std::array<Duration, Session::kMostVerified + 1> pass_{};  // by tokens; 1: without draft
};

}  // namespace terrace
