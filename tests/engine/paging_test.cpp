// SPDX-License-Identifier: Apache-2.0
#include "engine/paging.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "engine/mapped_file.h"
#include "tests/support/resident_bytes.h"
#include "tests/support/temporary_directory.h"

namespace terrace {
namespace {

using test::resident_bytes;

TEST_CASE("available_memory_bytes: some, and no more than the machine has") {
  struct sysinfo machine {};
  REQUIRE(::sysinfo(&machine) == 0);
  CHECK(available_memory_bytes() > 0);
  CHECK(available_memory_bytes() <= std::uint64_t{machine.totalram} * machine.mem_unit);
}

TEST_CASE("page_in: the pages that a range touches come to memory, the others do not") {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  constexpr std::size_t kPages = 1024;
  const test::TemporaryDirectory directory;
  const std::string path = directory.write("a", std::vector<std::byte>(kPages * page, std::byte{7}));
  const int descriptor = ::open(path.c_str(), O_RDONLY);
  REQUIRE(descriptor >= 0);
  const bool forgotten =
      ::fsync(descriptor) == 0 && ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) == 0;
  ::close(descriptor);
  const MappedFile file = MappedFile::open(path);
  if (!forgotten || resident_bytes(file.bytes()) > 0) {
    MESSAGE("skipped: the file system keeps its files in memory");
    return;
  }

  // The last byte of one page and the first of the next.
  const std::span<const std::byte> pages = file.bytes().subspan(kPages / 2 * page, 2 * page);
  page_in(pages.data() + page - 1, 2);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (resident_bytes(pages) < 2 * page && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(resident_bytes(pages) == 2 * page);
  CHECK(resident_bytes(file.bytes()) < kPages / 4 * page);
}

TEST_CASE("page_in: takes any range and changes no byte") {
  const test::TemporaryDirectory directory;
  const std::vector<std::byte> content(10'000, std::byte{7});
  const MappedFile file = MappedFile::open(directory.write("a", content));
  page_in(nullptr, 0);
  page_in(file.bytes().data() + 1, 0);
  page_in(file.bytes().data() + 1, 1);
  page_in(file.bytes().data() + 5000, 5000);
  CHECK(std::equal(content.begin(), content.end(), file.bytes().begin()));
}

}  // namespace
}  // namespace terrace
