// SPDX-License-Identifier: Apache-2.0
#include "engine/mapped_file.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <limits>
#include <utility>

#include "tests/support/expect_error.h"
#include "tests/support/resident_bytes.h"
#include "tests/support/temporary_directory.h"

namespace terrace {
namespace {

using test::expect_error;
using test::TemporaryDirectory;

std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST_CASE("A mapped file shows the bytes of the file and survives being moved") {
  const TemporaryDirectory directory;
  MappedFile file = MappedFile::open(directory.write("a", as_bytes("hello")));
  CHECK(file.bytes().size() == 5);
  CHECK(std::memcmp(file.bytes().data(), "hello", 5) == 0);
  MappedFile moved = std::move(file);
  CHECK(std::memcmp(moved.bytes().data(), "hello", 5) == 0);
  MappedFile other = MappedFile::open(directory.write("b", as_bytes("other")));
  other = std::move(moved);
  CHECK(std::memcmp(other.bytes().data(), "hello", 5) == 0);
  other.check_not_shortened();
}

TEST_CASE("Files that cannot be mapped are refused with their name and the reason") {
  const TemporaryDirectory directory;
  const std::string missing = directory.file("missing");
  expect_error(ErrorCode::kIo, "cannot open '" + missing + "': No such file",
               [&] { MappedFile::open(missing); });
  expect_error(ErrorCode::kBadFile, "it is a directory",
               [&] { MappedFile::open(directory.path().string()); });
  expect_error(ErrorCode::kBadFile, "is empty", [&] { MappedFile::open(directory.write("empty", {})); });
  expect_error(ErrorCode::kBadFile, "it is a device", [] { MappedFile::open("/dev/zero"); });
  expect_error(ErrorCode::kIo, "cannot open ''", [] { MappedFile::open(""); });
  expect_error(ErrorCode::kBadArgument, "zero byte", [] { MappedFile::open(std::string("a\0b", 3)); });

  const std::string pipe = directory.file("pipe");
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  expect_error(ErrorCode::kBadFile, "it is a pipe", [&] { MappedFile::open(pipe); });

  const std::string secret = directory.write("secret", as_bytes("x"));
  REQUIRE(::chmod(secret.c_str(), 0) == 0);
  if (::geteuid() == 0) {
    MESSAGE("skipped: the permission check, because root may read everything");
  } else {
    expect_error(ErrorCode::kIo, "Permission denied", [&] { MappedFile::open(secret); });
  }
}

TEST_CASE("Opening a file of 30 GB reads none of it") {
  const TemporaryDirectory directory;
  const std::string path = directory.write("large", as_bytes("x"));
  std::error_code error;
  std::filesystem::resize_file(path, std::uint64_t{30} << 30, error);
  if (error) {
    MESSAGE("skipped: the file system has no sparse files of that size");
    return;
  }
  const MappedFile file = MappedFile::open(path);
  CHECK(file.bytes().size() == std::uint64_t{30} << 30);
  CHECK(test::resident_bytes(file.bytes()) <= test::kMostReadAhead);
}

TEST_CASE("Paging hints change no byte, whatever range they name") {
  const TemporaryDirectory directory;
  const std::vector<std::byte> content(100'000, std::byte{7});
  const MappedFile file = MappedFile::open(directory.write("a", content));
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
  for (const auto& [offset, size] :
       std::initializer_list<std::pair<std::uint64_t, std::uint64_t>>{{0, 100'000},
                                                                      {0, 0},
                                                                      {1, 1},
                                                                      {4095, 2},
                                                                      {5000, 50'000},
                                                                      {99'999, 1},
                                                                      {100'000, 5},
                                                                      {kMax, kMax},
                                                                      {1, kMax}}) {
    CAPTURE(offset);
    CAPTURE(size);
    file.will_need(offset, size);
    file.expect_scattered(offset, size);
    file.release(offset, size);
    CHECK(std::memcmp(file.bytes().data(), content.data(), content.size()) == 0);
  }
}

TEST_CASE("A file that was cut short while it was mapped is found") {
  const TemporaryDirectory directory;
  const std::string path = directory.write("a", std::vector<std::byte>(10'000));
  const MappedFile file = MappedFile::open(path);
  std::filesystem::resize_file(path, 20'000);
  file.check_not_shortened();
  std::filesystem::resize_file(path, 9'999);
  expect_error(ErrorCode::kBadFile, "10000 bytes when it was opened, now 9999",
               [&] { file.check_not_shortened(); });
}

TEST_CASE("A file replaced by renaming stays readable through the old mapping") {
  const TemporaryDirectory directory;
  const std::string path = directory.write("a", as_bytes("old"));
  const MappedFile file = MappedFile::open(path);
  std::filesystem::rename(directory.write("b", as_bytes("n")), path);
  file.check_not_shortened();
  CHECK(std::memcmp(file.bytes().data(), "old", 3) == 0);
}

}  // namespace
}  // namespace terrace
