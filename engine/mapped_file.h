// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace terrace {

/// A file mapped read-only into memory, for as long as the object lives.
///
/// Opening costs the same for a file of any size: nothing is read until a byte is touched, and the pages are
/// the page cache's own, so that processes which map the same file share one copy.
///
/// Hazard: a mapping shows the file as it is now, not as it was when it was opened. If another program
/// shortens the file while it is mapped, touching a page past the new end raises SIGBUS, and no check made
/// here can rule that out. So a model file is replaced by renaming a new file over it (WeightWriter does),
/// which leaves the old one intact for whoever has it mapped, and is never rewritten in place.
/// `check_not_shortened` detects a file that has already been cut; long readers such as `verify` call it
/// between tensors.
class MappedFile {
 public:
  /// Maps the whole of the regular file at `path`.
  /// Throws Error{kIo} when it is missing or may not be read, Error{kBadFile} when it is a directory, a
  /// device, a pipe or empty, Error{kOutOfMemory} when there is no address space for it.
  static MappedFile open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  /// All bytes of the file; the first one lies at a page boundary. Never empty.
  std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
  const std::string& path() const noexcept { return path_; }

  /// Starts reading bytes [offset, offset + size) in the background; parts outside the file are ignored. A
  /// hint.
  void will_need(std::uint64_t offset, std::uint64_t size) const noexcept;

  /// Says that bytes [offset, offset + size) will be touched here and there: a touched page is then read
  /// alone, without the megabytes around it that the system would read ahead. A hint.
  void expect_scattered(std::uint64_t offset, std::uint64_t size) const noexcept;

  /// Gives up the resident pages that lie wholly inside [offset, offset + size); they come back when touched.
  /// Keeps a single pass over a large file from counting as this process's memory. A hint.
  void release(std::uint64_t offset, std::uint64_t size) const noexcept;

  /// Throws Error{kBadFile} when the file is now shorter than it was when it was mapped.
  void check_not_shortened() const;

 private:
  MappedFile(std::string path, int descriptor, const std::byte* data, std::size_t size) noexcept;
  void close() noexcept;

  std::string path_;
  int descriptor_ = -1;  ///< kept open for check_not_shortened
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace terrace
