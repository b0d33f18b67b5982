// SPDX-License-Identifier: Apache-2.0
#include "engine/runtime.h"

#include <tbb/info.h>
#include <tbb/task_arena.h>

#include <algorithm>

namespace terrace {

Runtime::Runtime(const Options& options) : team_(options.n_threads ? options.n_threads : default_threads()) {}

unsigned Runtime::default_threads() {
  // Two hyper-threads of a core share its load ports and fill buffers: a bandwidth-bound loop gains nothing.
  tbb::task_arena::constraints one_per_core;
  one_per_core.set_max_threads_per_core(1);
  return static_cast<unsigned>(std::max(1, tbb::info::default_concurrency(one_per_core)));
}

}  // namespace terrace
