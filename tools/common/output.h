// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace terrace::tools {

/// Writes to stdout and flushes, so that a reader sees text as it is made. Throws Error{kIo} (full disk,
/// closed pipe).
void write_stdout(std::string_view text);

/// Replaces a file. Throws Error{kIo}; an older file survives that.
void write_file(const std::string& path, std::string_view text);

}  // namespace terrace::tools
