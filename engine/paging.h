// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace terrace {

/// Bytes of memory this process may still use without swapping: what the system has, cut by the control
/// group's limit; page cache that can be given up counts as free. The largest number where the system does
/// not tell.
std::uint64_t available_memory_bytes();

/// Starts reading the pages of a mapped file that [data, data + bytes) touches, and does not wait for them:
/// of several ranges asked for in a row the disk works on all. A hint. Cost: a system call, about a
/// microsecond for a few pages that are there already.
void page_in(const void* data, std::size_t bytes) noexcept;

}  // namespace terrace
