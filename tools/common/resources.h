// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace terrace::tools {

/// Bytes of memory this process may still use without swapping: what the system has, cut by the control
/// group's limit. The largest number where the system does not tell.
std::uint64_t available_memory_bytes();

/// Free bytes for files in `folder`. Throws Error{kIo} when it is no folder.
std::uint64_t free_disk_bytes(const std::string& folder);

/// "12.3 GB", "456 MB".
std::string format_bytes(std::uint64_t bytes);

/// A new folder inside another, removed with all it holds.
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
