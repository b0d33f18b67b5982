// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <functional>

#include "engine/profile.h"
#include "engine/runtime.h"
#include "models/session.h"

namespace terrace::tools {

/// Where the time of one decoded token goes, seen by the leader.
struct TokenProfile {
  double seconds = 0;
  std::array<double, kZones> zone_seconds{};  ///< add up to `seconds`
  double phases = 0;                          ///< that the team shares
  /// The share of the token that would be saved if every phase began and ended at the same time on all
  /// threads: (n_threads * time in phases - time in chunks) / (n_threads * token).
  double sync_share = 0;
  double leader_alone_share = 0;  ///< share of the token outside such phases: the other threads wait for work

  double zone(Zone z) const noexcept { return zone_seconds[static_cast<std::size_t>(z)]; }
  /// The share of the decoder's blocks: all but embedding and output layer. State keeping and the caller's
  /// loop (Zone::kOther outside the blocks) are counted as the blocks', so the figure is an upper bound.
  double block_share() const noexcept {
    return seconds > 0 ? 1 - (zone(Zone::kEmbedding) + zone(Zone::kLogits)) / seconds : 0;
  }
};

/// Runs `decode_all`, which decodes `n_tokens` tokens with `session`, and returns the profile of one token.
TokenProfile profile_tokens(Session& session, Runtime& runtime, std::size_t n_tokens,
                            const std::function<void()>& decode_all);

}  // namespace terrace::tools
