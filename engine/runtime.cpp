// SPDX-License-Identifier: Apache-2.0
#include "engine/runtime.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#include "engine/control_group.h"

#ifdef __linux__
#include <sched.h>
#endif

namespace terrace {
namespace {

#ifdef __linux__

/// Cores among the CPUs that this process may run on: hyper-threads of one core name the same siblings.
unsigned cores_in_affinity_mask() {
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return std::thread::hardware_concurrency();
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                       "/topology/thread_siblings_list");
    std::string siblings;
    if (!std::getline(file, siblings)) siblings = std::to_string(cpu);  // not told: a core of its own
    cores.insert(siblings);
  }
  return static_cast<unsigned>(cores.size());
}

/// CPUs' worth of time that the control groups allow ("quota period" in microseconds), rounded up.
unsigned cores_in_quota(unsigned otherwise) {
  unsigned cores = otherwise;
  for (const std::string& folder : control_group_folders()) {
    std::ifstream file(folder + "/cpu.max");
    double quota = 0;
    double period = 0;
    if (!(file >> quota >> period) || quota <= 0 || period <= 0) continue;  // "max": no limit
    cores = std::min(cores, static_cast<unsigned>(std::ceil(quota / period)));
  }
  return cores;
}

#else

unsigned cores_in_affinity_mask() { return std::thread::hardware_concurrency(); }
unsigned cores_in_quota(unsigned otherwise) { return otherwise; }

#endif

}  // namespace

Runtime::Runtime(const Options& options) : team_(options.n_threads ? options.n_threads : default_threads()) {}

unsigned Runtime::default_threads() {
  // Two hyper-threads of a core share its load ports and fill buffers: a bandwidth-bound loop gains nothing.
  const unsigned cores = std::max(1U, cores_in_affinity_mask());
  return std::clamp(cores_in_quota(cores), 1U, cores);
}

}  // namespace terrace
