// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

namespace terrace {

/// Told now and then how many of how many bytes are done; returns false to stop, which the caller of the long
/// operation sees as Error{kCancelled}. May be empty.
using ByteProgress = std::function<bool(std::uint64_t done, std::uint64_t total)>;

}  // namespace terrace
