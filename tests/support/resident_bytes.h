// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <vector>

namespace terrace::test {

/// How many bytes of the pages of a mapped file lie in memory; `bytes` start at a page boundary.
inline std::size_t resident_bytes(std::span<const std::byte> bytes) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages((bytes.size() + page - 1) / page);
  if (::mincore(const_cast<std::byte*>(bytes.data()), bytes.size(), pages.data()) != 0) {
    throw std::runtime_error("mincore failed");
  }
  return page * static_cast<std::size_t>(
                    std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return (p & 1) != 0; }));
}

/// What opening a file may bring to memory, whatever its size: its header, and what the system reads ahead.
inline constexpr std::size_t kMostReadAhead = std::size_t{64} << 20;

}  // namespace terrace::test
