// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "models/sampler.h"
#include "models/session.h"

namespace terrace {

/// Guesses which tokens come next, cheaply (models/speculation.h).
class Draft {
 public:
  virtual ~Draft() = default;
  /// Fills `guesses` with the tokens that may follow `token`, which itself follows what the session holds,
  /// and returns their number, perhaps 0. Leaves the session as it was.
  virtual std::size_t propose(Session& session, TokenId token, std::span<TokenId> guesses) = 0;
};

/// The model itself at smaller nested widths (Devvrit et al. 2023, sec. 3.4 and app. C): no weights and no
/// cache of its own. It reads the keys and values that the full width left and appends its own, which are cut
/// off again. Cost: a token at these widths per guess, and a copy of the recurrent state.
class NestedDraft final : public Draft {
 public:
  /// `widths` as Session::set_width() takes them. `sampler`: a copy of the one that draws the text; both use
  /// the same random number at the same position, so that similar distributions give equal tokens.
  /// Throws Error{kBadArgument} for widths that `session` does not take.
  NestedDraft(Session& session, std::span<const std::uint32_t> widths, Sampler sampler,
              bool allow_untrained = false);
  std::size_t propose(Session& session, TokenId token, std::span<TokenId> guesses) override;

 private:
  std::size_t guess(Session& session, TokenId token, std::span<TokenId> guesses);

  std::vector<std::uint32_t> widths_;
  std::vector<std::uint32_t> full_;  ///< widths while the draft runs
  Sampler sampler_;
  bool allow_untrained_;
};

/// What followed the latest earlier place where the context read as it does now ("prompt lookup"): for text
/// that repeats or quotes. Cost: a scan of the context's ids.
class LookupDraft final : public Draft {
 public:
  /// At least and at most how many tokens must agree: the longest agreement wins.
  static constexpr std::size_t kLeastMatch = 2;
  static constexpr std::size_t kMostMatch = 8;

  std::size_t propose(Session& session, TokenId token, std::span<TokenId> guesses) override;
};

}  // namespace terrace
