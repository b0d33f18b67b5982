// SPDX-License-Identifier: Apache-2.0
#include "tools/common/output.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <span>
#include <system_error>

#include "engine/atomic_file.h"
#include "engine/error.h"

namespace terrace::tools {

void write_stdout(std::string_view text) {
  const bool ok = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  TERRACE_CHECK(ok, kIo,
                fmt::format("standard output: cannot write: {}", std::generic_category().message(errno)));
}

void write_stderr(std::string_view text) noexcept {
  static_cast<void>(std::fwrite(text.data(), 1, text.size(), stderr));  // unbuffered
}

void write_file(const std::string& path, std::string_view text) {
  AtomicFile file(path, text.size());
  file.write_at(0, std::as_bytes(std::span(text)));
  file.commit();
}

}  // namespace terrace::tools
