// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace terrace::test {

/// Counts the calls of operator new by all threads of the program since it was constructed.
/// The program must link allocation_counter.cpp, which replaces the global operators.
class AllocationCounter {
 public:
  AllocationCounter() noexcept;
  std::size_t allocations() const noexcept;

 private:
  std::size_t start_;
};

}  // namespace terrace::test
