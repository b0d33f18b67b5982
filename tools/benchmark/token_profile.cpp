// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmark/token_profile.h"

#include <algorithm>

#include "engine/phase_times.h"

namespace terrace::tools {
namespace {

/// Watches a session while alive.
class Watch {
 public:
  Watch(Session& session, Runtime& runtime, Profile& profile, PhaseTimes& times)
      : session_(session), runtime_(runtime) {
    session_.set_profile(&profile);
    runtime_.team().set_phase_times(&times);
  }
  ~Watch() {
    session_.set_profile(nullptr);
    runtime_.team().set_phase_times(nullptr);
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  Session& session_;
  Runtime& runtime_;
};

}  // namespace

TokenProfile profile_tokens(Session& session, Runtime& runtime, std::size_t n_tokens,
                            const std::function<void()>& decode_all) {
  Profile profile;
  PhaseTimes times;
  {
    const Watch watch(session, runtime, profile, times);
    profile.clear();
    decode_all();
    profile.enter(Zone::kOther);
  }
  const auto n = static_cast<double>(n_tokens);
  TokenProfile token;
  for (std::size_t z = 0; z < kZones; ++z) {
    token.zone_seconds[z] = profile.seconds(static_cast<Zone>(z)) / n;
    token.seconds += token.zone_seconds[z];
  }
  const double all = token.seconds * n;
  const double busy = times.busy_seconds() / runtime.n_threads();
  token.phases = static_cast<double>(times.phases()) / n;
  token.sync_share = std::max(0.0, times.wall_seconds() - busy) / all;
  token.leader_alone_share = std::max(0.0, all - times.wall_seconds()) / all;
  return token;
}

}  // namespace terrace::tools
