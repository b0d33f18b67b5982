// SPDX-License-Identifier: Apache-2.0
#include "tools/common/resources.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "engine/error.h"

namespace terrace::tools {
namespace {

constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();

/// The number that a file begins with; kUnlimited when there is none ("max", or no such file).
std::uint64_t read_number(const char* path) {
  std::uint64_t value = 0;
  return std::ifstream(path) >> value ? value : kUnlimited;
}

/// MemAvailable of /proc/meminfo.
std::uint64_t system_memory_bytes() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    constexpr std::string_view kKey = "MemAvailable:";
    if (line.starts_with(kKey)) return 1024 * std::stoull(line.substr(kKey.size()));
  }
  return kUnlimited;
}

/// What the control group (v2) leaves. Its count includes page cache, which can be given up, so this errs on
/// the low side.
std::uint64_t group_memory_bytes() {
  const std::uint64_t limit = read_number("/sys/fs/cgroup/memory.max");
  if (limit == kUnlimited) return kUnlimited;
  const std::uint64_t used = read_number("/sys/fs/cgroup/memory.current");
  return limit - std::min(limit, used);
}

}  // namespace

std::uint64_t available_memory_bytes() { return std::min(system_memory_bytes(), group_memory_bytes()); }

std::uint64_t free_disk_bytes(const std::string& folder) {
  struct statvfs status {};
  TERRACE_CHECK(statvfs(folder.c_str(), &status) == 0, kIo,
                fmt::format("{}: {}", folder, std::strerror(errno)));
  return std::uint64_t{status.f_bavail} * status.f_frsize;
}

std::string format_bytes(std::uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  return bytes >= 1'000'000'000 ? fmt::format("{:.1f} GB", value / 1e9)
                                : fmt::format("{:.0f} MB", value / 1e6);
}

TemporaryFolder::TemporaryFolder(const std::string& parent) : path_(parent + "/terrace-XXXXXX") {
  TERRACE_CHECK(mkdtemp(path_.data()) != nullptr, kIo,
                fmt::format("{}: cannot make a temporary folder: {}", parent, std::strerror(errno)));
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace terrace::tools
