// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace terrace::test {

/// Bytes of a file of tests/golden. Throws std::runtime_error naming the path if it cannot be read.
std::string read_golden_file(const std::string& name);

}  // namespace terrace::test
