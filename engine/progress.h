// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace terrace {

/// Told now and then how many of how many bytes are done; returns false to stop, which the caller of the long
/// operation sees as Error{kCancelled}. May be empty.
using ByteProgress = std::function<bool(std::uint64_t done, std::uint64_t total)>;

/// Told between passes of long work how many rows of a sequence were done since the last call; throws
/// Error{kCancelled} to stop the work there. May be empty.
using RowTick = std::function<void(std::size_t rows)>;

}  // namespace terrace
