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
/// draft is tried again from time to time, because texts change. Which number it is changes no token, only
/// when they come. Source: Leviathan et al. 2023, sec. 3.3, with a measured cost per pass (elastic reference,
/// 6.3).
class DraftLength {
 public:
  explicit DraftLength(std::size_t most) noexcept : most_(most) {}

  std::size_t next() noexcept;
  /// A round: so many guesses, of which the first n_right were right.
  void record(std::size_t n_guesses, std::size_t n_right, double draft_seconds,
              double verify_seconds) noexcept;
  /// A token without draft.
  void record_plain(double seconds) noexcept;

 private:
  /// The first rounds are short and long ones in turn, to see what they take.
  static constexpr std::size_t kFirstRounds = 4;
  static constexpr std::size_t kShort = 2;
  /// Tokens without draft before one is tried again.
  static constexpr std::size_t kRetryAfter = 24;

  /// A mean that forgets.
  class Mean {
   public:
    void add(double x) noexcept { mean_ = known_ ? mean_ + kStep * (x - mean_) : x, known_ = true; }
    bool known() const noexcept { return known_; }
    double value() const noexcept { return mean_; }

   private:
    static constexpr double kStep = 0.1;
    double mean_ = 0;
    bool known_ = false;
  };

  double verify_seconds(std::size_t n_tokens) const noexcept;
  double tokens_per_second(std::size_t n_guesses) const noexcept;

  std::size_t most_;
  std::size_t n_rounds_ = 0;
  std::size_t n_plain_ = 0;                              // since the last draft
  Mean right_;                                           // share of the guesses
  Mean guess_;                                           // seconds of one
  std::array<Mean, Session::kMostVerified + 1> pass_{};  // seconds, by tokens; 1: without draft
};

}  // namespace terrace
