// SPDX-License-Identifier: Apache-2.0
#include "engine/partial_files.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <span>
#include <string>

#include "engine/atomic_file.h"

namespace terrace {
namespace {

namespace fs = std::filesystem;

/// A folder of this process, gone with the object.
struct Folder {
  fs::path path = fs::temp_directory_path() / ("terrace-partial-" + std::to_string(::getpid()));
  Folder() { fs::create_directory(path); }
  ~Folder() { fs::remove_all(path); }
  std::string file(const char* name) const { return (path / name).string(); }
};

std::size_t n_files(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

}  // namespace

TEST_CASE("partial files: those of AtomicFile are removed until it commits or gives up") {
  const Folder folder;
  { const AtomicFile given_up(folder.file("a"), 10); }
  AtomicFile open(folder.file("b"), 10);
  AtomicFile done(folder.file("c"), 10);
  done.commit();
  CHECK(n_files(folder.path) == 2);
  remove_partial_files();
  CHECK(n_files(folder.path) == 1);
  CHECK(fs::exists(folder.file("c")));
}

TEST_CASE("partial files: a folder is removed after what is in it") {
  const Folder folder;
  const std::string inner = folder.file("inner"), file = inner + "/file";
  fs::create_directory(inner);
  std::ofstream(file) << "x";
  remember_partial_file(inner.c_str());
  remember_partial_file(file.c_str());
  remove_partial_files();
  CHECK(n_files(folder.path) == 0);
  forget_partial_file(inner.c_str());
  forget_partial_file(file.c_str());
}

TEST_CASE("partial files: more than the list takes, and names too long for it, do no harm") {
  const Folder folder;
  for (int i = 0; i < 2 * kMostPartialFiles; ++i) {
    const std::string name = folder.file(std::to_string(i).c_str());
    std::ofstream(name) << "x";
    remember_partial_file(name.c_str());
  }
  remember_partial_file(std::string(5000, 'x').c_str());
  remove_partial_files();
  CHECK(n_files(folder.path) == kMostPartialFiles);
  for (int i = 0; i < 2 * kMostPartialFiles; ++i) {
    forget_partial_file(folder.file(std::to_string(i).c_str()).c_str());
  }
}

TEST_CASE("atomic file: a file that is replaced passes its mode on") {
  const Folder folder;
  const std::string path = folder.file("secret");
  std::ofstream(path) << "x";
  ::chmod(path.c_str(), 0640);
  AtomicFile file(path, 1);
  file.commit();
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0640);
}

}  // namespace terrace
