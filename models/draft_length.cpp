// SPDX-License-Identifier: Apache-2.0
#include "models/draft_length.h"

#include <algorithm>
#include <cmath>

namespace terrace {

void DraftLength::record(std::size_t n_guesses, std::size_t n_right, double draft_seconds,
                         double verify_seconds) noexcept {
  for (std::size_t i = 0; i < std::min(n_right + 1, n_guesses); ++i) right_.add(i < n_right ? 1 : 0);
  guess_.add(draft_seconds / static_cast<double>(n_guesses));
  pass_[n_guesses + 1].add(verify_seconds);
  n_plain_ = 0;
  ++n_rounds_;
}

void DraftLength::record_plain(double seconds) noexcept {
  pass_[1].add(seconds);
  ++n_plain_;
}

/// Passes of other lengths lie on the line through the two known ones next to them.
double DraftLength::verify_seconds(std::size_t n_tokens) const noexcept {
  if (pass_[n_tokens].known()) return pass_[n_tokens].value();
  std::size_t below = n_tokens, above = n_tokens;
  while (below > 1 && !pass_[below].known()) --below;
  while (above < pass_.size() && !pass_[above].known()) ++above;
  const double at_below = pass_[below].value();
  // Beyond the longest one: as if every further token took its share of that.
  if (above == pass_.size()) return at_below * static_cast<double>(n_tokens) / static_cast<double>(below);
  const double slope = (pass_[above].value() - at_below) / static_cast<double>(above - below);
  return at_below + slope * static_cast<double>(n_tokens - below);
}

double DraftLength::tokens_per_second(std::size_t n_guesses) const noexcept {
  const double a = std::min(right_.value(), 0.99);
  const auto n = static_cast<double>(n_guesses);
  const double tokens = (1 - std::pow(a, n + 1)) / (1 - a);
  return tokens / (n * guess_.value() + verify_seconds(n_guesses + 1));
}

std::size_t DraftLength::next() noexcept {
  if (!pass_[1].known()) return 0;  // what a token takes without draft
  if (n_rounds_ < kFirstRounds) return n_rounds_ % 2 == 0 ? std::min(kShort, most_) : most_;
  std::size_t best = 0;
  for (std::size_t n = 1; n <= most_; ++n)
    if (tokens_per_second(n) > tokens_per_second(best)) best = n;
  return best == 0 && n_plain_ >= kRetryAfter ? std::min(kShort, most_) : best;
}

}  // namespace terrace
