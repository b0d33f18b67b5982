// SPDX-License-Identifier: Apache-2.0
#include "tools/common/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

namespace terrace::tools {

void prepare_standard_streams() noexcept {
  // The wrong way round, so that reading the first and writing the second are errors.
  constexpr int kModes[] = {O_WRONLY, O_RDONLY, O_WRONLY};
  for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; ++stream) {
    const bool closed = fcntl(stream, F_GETFD) == -1 && errno == EBADF;
    if (closed) static_cast<void>(open("/dev/null", kModes[stream]));  // takes the lowest free number
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

}  // namespace terrace::tools
