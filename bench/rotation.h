// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace terrace::bench {

/// Bytes of the last-level caches, taken together, of the CPUs that this process may run on; 0 where the
/// system does not tell.
std::size_t last_level_cache_bytes();

/// How much weights or caches that take turns hold together so that each comes from memory when its turn
/// comes: twice the last-level caches, and no less than the read probe has. At most a quarter of the memory
/// that is available now, since several figures hold theirs at once; says so on stderr if that is less.
std::size_t bytes_in_rotation();

}  // namespace terrace::bench
