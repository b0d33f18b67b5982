// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "models/sampler.h"
#include "models/session.h"

namespace terrace {

/// Feeds one token and draws the one after it; where the sampler takes the largest logit anyway, logits are
/// not written. Throws as Session::decode() and Sampler::sample().
inline TokenId draw_next(Session& session, Sampler& sampler, TokenId token) {
  if (sampler.takes_largest()) return session.decode_greedy(token);
  const std::span<const float> logits = session.decode(token);  // before tokens(), which then has this one
  return sampler.sample(logits, session.tokens());
}

}  // namespace terrace
