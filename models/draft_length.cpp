// SPDX-License-Identifier: Apache-2.0
#include "models/draft_length.h"

#include <algorithm>
#include <cmath>

namespace terrace {

void DraftLength::record(std::size_t n_guesses, std::size_t n_right, double draft_seconds,
                         double verify_seconds) noexcept {
  constexpr double kStep = 0.1;
  // Behind the first wrong guess nobody knows which ones are right.
  for (std::size_t i = 0; i < std::min(n_right + 1, n_guesses); ++i)
    right_ += kStep * ((i < n_right ? 1.0 : 0.0) - right_);
  guess_.add(draft_seconds / static_cast<double>(n_guesses));
  pass_[n_guesses + 1].add(verify_seconds);
  n_alone_ = 0;
  ++n_rounds_;
  wait_ = best() > 0 ? kFirstWait : std::clamp(2 * wait_, kFirstWait, kLongestWait);
}

void DraftLength::record_plain(double seconds) noexcept {
  pass_[1].add(seconds);
  ++n_alone_;
  if (n_rounds_ > 0) most_rounds_ = std::min(2 * most_rounds_, kMostRounds);
  n_rounds_ = 0;
}

/// What is not known lies on the line through the next known lengths, two of them: below and above, or both
/// below. One token is always known, and one more length.
double DraftLength::verify_seconds(std::size_t n_tokens) const noexcept {
  if (pass_[n_tokens].known()) return pass_[n_tokens].value();
  const auto known_below = [&](std::size_t n) {
    while (n > 1 && !pass_[n].known()) --n;
    return n;
  };
  std::size_t first = known_below(n_tokens), second = n_tokens;
  while (second < pass_.size() && !pass_[second].known()) ++second;
  if (second == pass_.size()) {
    second = first;
    first = known_below(second - 1);
  }
  const double rise = pass_[second].value() - pass_[first].value();
  const double slope = std::max(0.0, rise / static_cast<double>(second - first));
  return pass_[first].value() + slope * static_cast<double>(n_tokens - first);
}

double DraftLength::tokens_per_second(std::size_t n_guesses) const noexcept {
  if (n_guesses == 0) return 1 / pass_[1].value();
  const double a = std::min(right_, 0.99);
  const auto n = static_cast<double>(n_guesses);
  const double tokens = (1 - std::pow(a, n + 1)) / (1 - a);
  return tokens / (n * guess_.value() + verify_seconds(n_guesses + 1));
}

std::size_t DraftLength::best() const noexcept {
  std::size_t best = 0;
  for (std::size_t n = 1; n <= most_; ++n)
    if (tokens_per_second(n) > tokens_per_second(best)) best = n;
  return best;
}

std::size_t DraftLength::next() const noexcept {
  if (n_rounds_ >= most_rounds_) return 0;
  const std::size_t n = guess_.known() ? best() : 0;
  return n > 0 || n_alone_ < wait_ ? n : std::min(kShort, most_);
}

}  // namespace terrace
