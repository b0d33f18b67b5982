// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace terrace::tools {

/// What this process has had to fetch from the disk since it was started.
struct DiskReads {
  std::uint64_t faults = 0;  ///< times that it waited for a page
  std::uint64_t bytes = 0;

  static DiskReads so_far() noexcept;
  DiskReads operator-(const DiskReads& earlier) const noexcept {
    return {faults - earlier.faults, bytes - earlier.bytes};
  }
};

/// The most memory that this process has had, pages of files included.
std::uint64_t peak_resident_bytes() noexcept;

/// Free bytes for files in `folder`. Throws Error{kIo} when it is no folder.
std::uint64_t free_disk_bytes(const std::string& folder);

/// "12.3 GB", "456 MB".
std::string format_bytes(std::uint64_t bytes);

/// A new folder inside another; the destructor removes it with all its contents.
class TemporaryFolder {
 public:
  /// Throws Error{kIo}.
  explicit TemporaryFolder(const std::string& parent);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace terrace::tools
