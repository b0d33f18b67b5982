// SPDX-License-Identifier: Apache-2.0
#include "tools/common/output.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "engine/error.h"

namespace terrace::tools {

void write_stdout(std::string_view text) {
  const bool ok = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  TERRACE_CHECK(ok, kIo, fmt::format("standard output: cannot write: {}", std::strerror(errno)));
}

}  // namespace terrace::tools
