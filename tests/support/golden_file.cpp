// SPDX-License-Identifier: Apache-2.0
#include "tests/support/golden_file.h"

#include <fstream>
#include <iterator>
#include <stdexcept>

namespace terrace::test {

std::string read_golden_file(const std::string& name) {
  const std::string path = std::string(TERRACE_GOLDEN_DIR) + "/" + name;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace terrace::test
