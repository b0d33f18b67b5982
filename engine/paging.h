// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace terrace {

/// Bytes of memory this process may still use without swapping: what the system has, capped by the control
/// group's limit; page cache that can be given up counts as free. The largest number where the system does
/// not say.
std::uint64_t available_memory_bytes();

/// Starts reading the pages of a mapped file that [data, data + bytes) touches, and does not wait for them,
/// so that the disk works on several ranges at once. A hint. Cost: a system call, about a microsecond for a
/// few pages that are in memory already.
void page_in(const void* data, std::size_t bytes) noexcept;

}  // namespace terrace
