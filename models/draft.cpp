// SPDX-License-Identifier: Apache-2.0
#include "models/draft.h"

#include <algorithm>
#include <utility>

#include "engine/error.h"
#include "models/draw_next.h"

namespace terrace {

NestedDraft::NestedDraft(Session& session, std::span<const std::uint32_t> widths, Sampler sampler,
                         bool allow_untrained)
    : widths_(widths.begin(), widths.end()),
      full_(session.widths().begin(), session.widths().end()),
      sampler_(std::move(sampler)),
      allow_untrained_(allow_untrained) {
  session.set_width(widths_, allow_untrained_);  // refuses them now rather than in the middle of a text
  session.set_width(full_, true);
}

std::size_t NestedDraft::propose(Session& session, TokenId token, std::span<TokenId> guesses) {
  const std::size_t position = session.position();
  std::copy(session.widths().begin(), session.widths().end(), full_.begin());
  session.mark();
  session.set_width(widths_, allow_untrained_);
  const auto put_back = [&] {
    session.set_width(full_, true);
    session.rewind(position);
  };
  std::size_t n = 0;
  try {
    n = guess(session, token, guesses);
  } catch (const Error&) {
    // Nothing can be drawn from the narrow model's logits (NaN); the full width may well have an answer.
  } catch (...) {
    put_back();
    throw;
  }
  put_back();
  return n;
}

std::size_t NestedDraft::guess(Session& session, TokenId token, std::span<TokenId> guesses) {
  const TokenId end = session.model().config().tokens.end;
  std::size_t n = 0;
  for (; n < guesses.size() && token != end; ++n) {
    token = draw_next(session, sampler_, token);
    guesses[n] = token;
  }
  return n;
}

std::size_t LookupDraft::propose(Session& session, TokenId token, std::span<TokenId> guesses) {
  const std::span<const TokenId> before = session.tokens();
  const std::size_t most = std::min(kMostMatch - 1, before.size());
  std::size_t best = 0, longest = kLeastMatch - 1;
  for (std::size_t i = before.size(); i-- > 0 && longest < kMostMatch;) {
    if (before[i] != token) continue;
    std::size_t n = 1;
    while (n <= std::min(most, i) && before[i - n] == before[before.size() - n]) ++n;
    if (n > longest) {
      longest = n;
      best = i + 1;
    }
  }
  if (longest < kLeastMatch) return 0;
  std::size_t n = 0;
  for (; n < guesses.size() && best + n <= before.size(); ++n)
    guesses[n] = best + n < before.size() ? before[best + n] : token;
  return n;
}

}  // namespace terrace
