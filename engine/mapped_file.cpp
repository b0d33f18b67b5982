// SPDX-License-Identifier: Apache-2.0
#include "engine/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "engine/checked.h"
#include "engine/error.h"

namespace terrace {
namespace {

std::string reason(int error_number) { return std::generic_category().message(error_number); }

/// What `mode` describes, for the message about something that cannot be mapped; nullptr for a regular file.
const char* irregular_kind(mode_t mode) noexcept {
  if (S_ISREG(mode)) return nullptr;
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "not a regular file";
}

/// A descriptor that closes itself until it is handed on.
class Descriptor {
 public:
  explicit Descriptor(int number) noexcept : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int get() const noexcept { return number_; }
  int hand_on() noexcept { return std::exchange(number_, -1); }

 private:
  int number_;
};

struct PageRange {
  std::byte* begin;
  std::size_t size;
};

/// The pages of `bytes` that [offset, offset + size) touches (`whole` false) or contains (`whole` true).
PageRange pages_of(std::span<const std::byte> bytes, std::uint64_t offset, std::uint64_t size,
                   bool whole) noexcept {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t first = std::min<std::uint64_t>(offset, bytes.size());
  const std::uint64_t last =
      std::min<std::uint64_t>(try_add(offset, size).value_or(bytes.size()), bytes.size());
  const std::uint64_t begin = whole ? (first + page - 1) / page * page : first / page * page;
  // The kernel rounds the end of a range up to a page, and the file's own last page has no neighbour to
  // spare.
  const std::uint64_t end = whole && last != bytes.size() ? last / page * page : last;
  // The kernel's interface takes a pointer to mutable bytes; advice changes none of them.
  return {const_cast<std::byte*>(bytes.data()) + std::min(begin, end), end - std::min(begin, end)};
}

}  // namespace

MappedFile MappedFile::open(const std::string& path) {
  TERRACE_CHECK(path.find('\0') == std::string::npos, kBadArgument,
                "a file name must not contain a zero byte");
  // O_NONBLOCK: opening a pipe without a writer would wait forever before we could say that it is a pipe.
  Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  TERRACE_CHECK(descriptor.get() >= 0, kIo, "cannot open '" + path + "': " + reason(errno));

  struct stat status {};
  TERRACE_CHECK(::fstat(descriptor.get(), &status) == 0, kIo,
                "cannot examine '" + path + "': " + reason(errno));
  if (const char* kind = irregular_kind(status.st_mode)) {
    throw Error(ErrorCode::kBadFile,
                "cannot map '" + path + "': it is " + kind + ", expected a regular file");
  }
  TERRACE_CHECK(status.st_size > 0, kBadFile, "'" + path + "' is empty");

  const auto size = checked_narrow<std::size_t>(status.st_size, "size of '" + path + "'");
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor.get(), 0);
  if (data == MAP_FAILED) {
    const ErrorCode code = errno == ENOMEM ? ErrorCode::kOutOfMemory : ErrorCode::kIo;
    throw Error(code, "cannot map '" + path + "' (" + std::to_string(size) + " bytes): " + reason(errno));
  }
#ifdef MADV_HUGEPAGE
  // Weights are streamed through on every token; large pages spare most of the address translation. Refusal
  // is normal (the file system may not offer them) and harmless.
  static_cast<void>(::madvise(data, size, MADV_HUGEPAGE));
#endif
  return MappedFile(path, descriptor.hand_on(), static_cast<const std::byte*>(data), size);
}

MappedFile::MappedFile(std::string path, int descriptor, const std::byte* data, std::size_t size) noexcept
    : path_(std::move(path)), descriptor_(descriptor), data_(data), size_(size) {}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    close();
    path_ = std::move(other.path_);
    descriptor_ = std::exchange(other.descriptor_, -1);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

MappedFile::~MappedFile() { close(); }

void MappedFile::close() noexcept {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  if (descriptor_ >= 0) ::close(descriptor_);
}

void MappedFile::will_need(std::uint64_t offset, std::uint64_t size) const noexcept {
  const PageRange pages = pages_of(bytes(), offset, size, /*whole=*/false);
  if (pages.size > 0) static_cast<void>(::madvise(pages.begin, pages.size, MADV_WILLNEED));
}

void MappedFile::expect_scattered(std::uint64_t offset, std::uint64_t size) const noexcept {
  const PageRange pages = pages_of(bytes(), offset, size, /*whole=*/true);
  if (pages.size == 0) return;
  static_cast<void>(::madvise(pages.begin, pages.size, MADV_RANDOM));
#ifdef MADV_NOHUGEPAGE
  static_cast<void>(::madvise(pages.begin, pages.size, MADV_NOHUGEPAGE));
#endif
}

void MappedFile::release(std::uint64_t offset, std::uint64_t size) const noexcept {
  const PageRange pages = pages_of(bytes(), offset, size, /*whole=*/true);
  if (pages.size > 0) static_cast<void>(::madvise(pages.begin, pages.size, MADV_DONTNEED));
}

void MappedFile::check_not_shortened() const {
  struct stat status {};
  TERRACE_CHECK(::fstat(descriptor_, &status) == 0, kIo, "cannot examine '" + path_ + "': " + reason(errno));
  TERRACE_CHECK(std::cmp_greater_equal(status.st_size, size_), kBadFile,
                "'" + path_ + "' was cut short while it was in use: " + std::to_string(size_) +
                    " bytes when it was opened, now " + std::to_string(status.st_size));
}

}  // namespace terrace
