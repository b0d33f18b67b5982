// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace terrace::tools {

/// Writes to stdout and flushes, so that a reader sees text as it is generated. Throws Error{kIo} (full disk,
/// closed pipe).
void write_stdout(std::string_view text);

/// Writes to stderr. Where that is closed or full there is nobody to tell, and nothing else changes for it.
void write_stderr(std::string_view text) noexcept;

/// Replaces a file. Throws Error{kIo}; the older file then survives.
void write_file(const std::string& path, std::string_view text);

}  // namespace terrace::tools
