// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace terrace {

// The files and folders that shall not outlive the process: unfinished outputs, and what else it removes at
// the end. The list exists for a signal handler, which can reach no object. It takes kMostPartialFiles names
// of usual length; more are simply not in it. Any thread may call these.
inline constexpr int kMostPartialFiles = 32;

void remember_partial_file(const char* path) noexcept;
void forget_partial_file(const char* path) noexcept;

/// Removes all of them, the last remembered one first, so that a folder comes after what is in it.
/// Async-signal safe. For a process that is about to end: the files' owners are not told.
void remove_partial_files() noexcept;

}  // namespace terrace
