// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace terrace {

/// A file that appears under its name only when it is complete. Bytes go to a temporary file beside the
/// target; `commit` flushes them to the disk and renames it, so that whoever opens the target sees the whole
/// old file or the whole new one, even after a crash. Without commit the temporary file is removed.
/// The new file has the mode of the one that it replaces.
///
/// All errors are Error{kIo} with the target's name, what was tried and the system's reason.
class AtomicFile {
 public:
  /// Creates the temporary file with `bytes` bytes of zeros and reserves their space where the file system
  /// can, so that a full disk is noticed now and not after an hour. A target that is a symbolic link is
  /// followed. Refuses a target that exists and is not a regular file.
  AtomicFile(const std::string& path, std::uint64_t bytes);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  /// Writes `bytes` at `offset`.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);

  /// Makes the file durable and gives it its name. Nothing may be written afterwards.
  void commit();

  const std::string& path() const noexcept { return path_; }

 private:
  void discard() noexcept;

  std::string path_;       ///< the target, links followed
  std::string temporary_;  ///< empty once it is renamed or removed
  int descriptor_ = -1;
};

}  // namespace terrace
