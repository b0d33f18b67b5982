// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/isa.h"
#include "engine/thread_team.h"

namespace terrace {

/// Where work runs: the thread team. Passed in, never global. Only one session at a time may use a Runtime;
/// programs with several sessions in flight make one for each.
class Runtime {
 public:
  struct Options {
    unsigned n_threads = 0;  ///< 0 = default_threads()
  };

  /// Throws Error{kBadArgument}.
  explicit Runtime(const Options& options);
  Runtime() : Runtime(Options{}) {}

  ThreadTeam& team() noexcept { return team_; }
  unsigned n_threads() const noexcept { return team_.size(); }

  /// Physical cores this process may run on (affinity and cgroup limits respected), at least 1.
  static unsigned default_threads();

 private:
  ThreadTeam team_;
};

}  // namespace terrace
