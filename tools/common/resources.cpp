// SPDX-License-Identifier: Apache-2.0
#include "tools/common/resources.h"

#include <fmt/format.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp is POSIX
#include <sys/resource.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "engine/error.h"

namespace terrace::tools {

DiskReads DiskReads::so_far() noexcept {
  constexpr std::uint64_t kBlockBytes = 512;  // the unit of ru_inblock, whatever the disk's
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return {static_cast<std::uint64_t>(usage.ru_majflt),
          kBlockBytes * static_cast<std::uint64_t>(usage.ru_inblock)};
}

std::uint64_t peak_resident_bytes() noexcept {
#ifdef __APPLE__
  constexpr std::uint64_t kUnit = 1;
#else
  constexpr std::uint64_t kUnit = 1024;
#endif
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return kUnit * static_cast<std::uint64_t>(usage.ru_maxrss);
}

std::uint64_t free_disk_bytes(const std::string& folder) {
  struct statvfs status {};
  TERRACE_CHECK(statvfs(folder.c_str(), &status) == 0, kIo,
                fmt::format("{}: {}", folder, std::generic_category().message(errno)));
  return std::uint64_t{status.f_bavail} * status.f_frsize;
}

std::string format_bytes(std::uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  return bytes >= 1'000'000'000 ? fmt::format("{:.1f} GB", value / 1e9)
                                : fmt::format("{:.0f} MB", value / 1e6);
}

TemporaryFolder::TemporaryFolder(const std::string& parent) : path_(parent + "/terrace-XXXXXX") {
  TERRACE_CHECK(
      mkdtemp(path_.data()) != nullptr, kIo,
      fmt::format("{}: cannot make a temporary folder: {}", parent, std::generic_category().message(errno)));
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace terrace::tools
