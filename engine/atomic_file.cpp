// SPDX-License-Identifier: Apache-2.0
#include "engine/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <tuple>
#include <utility>

#include "engine/checked.h"
#include "engine/error.h"
#include "engine/partial_files.h"

namespace terrace {
namespace fs = std::filesystem;
namespace {

/// Written data that the system has not yet begun to store; what `commit` waits for in the end stays this
/// small.
constexpr std::uint64_t kWriteBehindBytes = 64U << 20;

[[noreturn]] void fail(const std::string& what, const std::string& path, int error_number) {
  throw Error(ErrorCode::kIo, what + " '" + path + "': " + std::generic_category().message(error_number));
}

/// The file that writing to `path` shall replace or create.
std::string resolve_target(const std::string& path) {
  TERRACE_CHECK(!path.empty(), kBadArgument, "the name of the output file is empty");
  TERRACE_CHECK(path.find('\0') == std::string::npos, kBadArgument,
                "a file name must not contain a zero byte");
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status) || !fs::path(path).has_filename()) fail("cannot write", path, EISDIR);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    throw Error(ErrorCode::kIo, "cannot write '" + path +
                                    "': it exists and is no regular file, which renaming would replace");
  }
  if (fs::is_regular_file(status) && fs::is_symlink(fs::symlink_status(path, error))) {
    const fs::path target = fs::canonical(path, error);
    if (error) fail("cannot follow the link", path, error.value());
    return target.string();
  }
  return path;
}

/// Creates a file of a name that nobody uses, beside `target`.
std::pair<int, std::string> create_beside(const std::string& target) {
  constexpr int kAttempts = 1000;
  const std::string stem = target + ".partial-" + std::to_string(::getpid()) + "-";
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::string name = stem + std::to_string(attempt);
    const int descriptor = ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor >= 0) return {descriptor, std::move(name)};
    if (errno != EEXIST) fail("cannot create", target, errno);
  }
  fail("cannot create a temporary file for", target, EEXIST);
}

/// Who may read the file that is replaced may read the new one, and nobody else.
void take_mode_of(const std::string& target, int descriptor) noexcept {
  struct stat old {};
  if (::stat(target.c_str(), &old) == 0) static_cast<void>(::fchmod(descriptor, old.st_mode & 07777));
}

/// Gives the file its size; reserves the space where that is possible. Returns 0 or an error number.
int reserve(int descriptor, off_t bytes) noexcept {
#ifdef __linux__
  // The system call, not posix_fallocate: where it is not supported the latter would write every block.
  if (bytes > 0) {
    if (::fallocate(descriptor, 0, 0, bytes) == 0) return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS) return errno;
  }
#endif
  return ::ftruncate(descriptor, bytes) == 0 ? 0 : errno;
}

/// Makes a rename in `directory` durable. Some file systems cannot; the name is then as durable as they make
/// it.
void sync_directory(const fs::path& directory) noexcept {
  const int descriptor =
      ::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  static_cast<void>(::fsync(descriptor));
  ::close(descriptor);
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path, std::uint64_t bytes) : path_(resolve_target(path)) {
  const auto size = try_narrow<off_t>(bytes);
  if (!size) fail("cannot reserve " + std::to_string(bytes) + " bytes for", path_, EFBIG);
  std::tie(descriptor_, temporary_) = create_beside(path_);
  remember_partial_file(temporary_.c_str());
  take_mode_of(path_, descriptor_);
  if (const int error = reserve(descriptor_, *size); error != 0) {
    discard();
    fail("cannot reserve " + std::to_string(bytes) + " bytes for", path_, error);
  }
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() noexcept {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
  if (temporary_.empty()) return;
  ::unlink(temporary_.c_str());
  forget_partial_file(temporary_.c_str());
  temporary_.clear();
}

void AtomicFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  TERRACE_CHECK(descriptor_ >= 0, kInternal, "'" + path_ + "' is written to after commit");
  const std::uint64_t begin = offset;
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    // The system never writes nothing without a reason, but a loop must not hang on one that does.
    if (written <= 0) fail("cannot write", path_, written < 0 ? errno : EIO);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
#ifdef __linux__
  // Start storing each full stretch at once: a disk that is behind then slows the writing down evenly,
  // instead of making commit wait for gigabytes.
  if (begin / kWriteBehindBytes != offset / kWriteBehindBytes) {
    const std::uint64_t first = begin / kWriteBehindBytes * kWriteBehindBytes;
    static_cast<void>(::sync_file_range(descriptor_, static_cast<off_t>(first),
                                        static_cast<off_t>(offset - first), SYNC_FILE_RANGE_WRITE));
  }
#endif
}

void AtomicFile::commit() {
  TERRACE_CHECK(descriptor_ >= 0, kInternal, "'" + path_ + "' is committed twice");
  if (::fsync(descriptor_) != 0) fail("cannot store", path_, errno);
  if (::close(std::exchange(descriptor_, -1)) != 0) fail("cannot close", path_, errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot name the finished file", path_, errno);
  forget_partial_file(temporary_.c_str());
  temporary_.clear();
  sync_directory(fs::path(path_).parent_path());
}

}  // namespace terrace
