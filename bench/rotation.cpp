// SPDX-License-Identifier: Apache-2.0
#include "bench/rotation.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <string>

#include "engine/bandwidth.h"
#include "engine/paging.h"

#ifdef __linux__
#include <sched.h>
#endif

namespace terrace::bench {
namespace {

#ifdef __linux__
/// Adds the cache of the highest level that a CPU has to `caches`, by the list of CPUs that share it.
void add_last_cache(int cpu, std::map<std::string, std::size_t>& caches) {
  int highest = 0;
  std::string sharers;
  std::size_t bytes = 0;
  for (int index = 0;; ++index) {
    const std::string folder = fmt::format("/sys/devices/system/cpu/cpu{}/cache/index{}/", cpu, index);
    int level = 0;
    if (!(std::ifstream(folder + "level") >> level)) break;
    std::size_t number = 0;
    char unit = 'B';
    std::ifstream(folder + "size") >> number >> unit;  // "307200K"
    if (level <= highest || number == 0) continue;
    highest = level;
    bytes = number << (unit == 'K' ? 10 : unit == 'M' ? 20 : unit == 'G' ? 30 : 0);
    std::getline(std::ifstream(folder + "shared_cpu_list"), sharers);
  }
  if (bytes > 0) caches[sharers] = bytes;
}

std::size_t caches_in_affinity_mask() {
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return 0;
  std::map<std::string, std::size_t> caches;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &mask)) add_last_cache(cpu, caches);
  }
  std::size_t sum = 0;
  for (const auto& [sharers, bytes] : caches) sum += bytes;
  return sum;
}
#else
std::size_t caches_in_affinity_mask() { return 0; }
#endif

std::size_t third_level_cache() {
#ifdef _SC_LEVEL3_CACHE_SIZE
  return static_cast<std::size_t>(std::max(0L, ::sysconf(_SC_LEVEL3_CACHE_SIZE)));
#else
  return 0;
#endif
}

}  // namespace

std::size_t last_level_cache_bytes() {
  static const std::size_t bytes = std::max(caches_in_affinity_mask(), third_level_cache());
  return bytes;
}

std::size_t bytes_in_rotation() {
  const std::size_t wanted = std::max(2 * last_level_cache_bytes(), BandwidthProbe::kDefaultBytes);
  const std::size_t most = available_memory_bytes() / 4;
  if (wanted <= most) return wanted;
  constexpr double kMega = 1e-6;
  fmt::print(
      stderr,
      "memory is short: {:.0f} MB in rotation instead of {:.0f} MB, so a figure may count what the caches "
      "hold ({:.0f} MB); --dtype and --benchmark_filter make a run smaller\n",
      kMega * static_cast<double>(most), kMega * static_cast<double>(wanted),
      kMega * static_cast<double>(last_level_cache_bytes()));
  return most;
}

}  // namespace terrace::bench
