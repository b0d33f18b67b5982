// SPDX-License-Identifier: Apache-2.0
#include "engine/paging.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>

#include "engine/control_group.h"

namespace terrace {
namespace {

constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();

/// The number that a file begins with; kUnlimited when there is none ("max", or no such file).
std::uint64_t read_number(const std::string& path) {
  std::uint64_t value = 0;
  return std::ifstream(path) >> value ? value : kUnlimited;
}

/// The number after `key` at the start of a line of a file; `otherwise` where there is none.
std::uint64_t read_entry(const std::string& path, std::string_view key, std::uint64_t otherwise) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  for (std::string word; file >> word;) {
    if (word == key && file >> value) return value;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return otherwise;
}

std::uint64_t system_memory_bytes() {
  constexpr std::uint64_t kKibi = 1024;
  const std::uint64_t kibibytes = read_entry("/proc/meminfo", "MemAvailable:", kUnlimited);
  return kibibytes > kUnlimited / kKibi ? kUnlimited : kKibi * kibibytes;
}

/// What a control group leaves. Its count includes page cache, most of which can be given up.
std::uint64_t group_memory_bytes(const std::string& folder) {
  const std::uint64_t limit = read_number(folder + "/memory.max");
  if (limit == kUnlimited) return kUnlimited;
  const std::uint64_t used = read_number(folder + "/memory.current");
  const std::string statistics = folder + "/memory.stat";
  const std::uint64_t cache =
      read_entry(statistics, "inactive_file", 0) + read_entry(statistics, "active_file", 0);
  return limit - std::min(limit, used - std::min(used, cache));
}

}  // namespace

std::uint64_t available_memory_bytes() {
  std::uint64_t bytes = system_memory_bytes();
  for (const std::string& folder : control_group_folders())
    bytes = std::min(bytes, group_memory_bytes(folder));
  return bytes;
}

void page_in(const void* data, std::size_t bytes) noexcept {
  static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t before = reinterpret_cast<std::uintptr_t>(data) % page;  // of the first page
  // The kernel's interface takes a pointer to mutable bytes; advice changes none of them.
  auto* const begin = static_cast<std::byte*>(const_cast<void*>(data)) - before;
  if (bytes > 0) static_cast<void>(::madvise(begin, before + bytes, MADV_WILLNEED));
}

}  // namespace terrace
