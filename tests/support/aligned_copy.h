// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <span>

namespace terrace::test {

/// A copy of some bytes at a multiple of 64, in an allocation of exactly their size, so that AddressSanitizer
/// sees a read of even one byte more.
class AlignedCopy {
 public:
  explicit AlignedCopy(std::span<const std::byte> bytes)
      : data_(static_cast<std::byte*>(::operator new (bytes.size(), std::align_val_t{kAlignment}))),
        size_(bytes.size()) {
    if (size_ > 0) std::memcpy(data_.get(), bytes.data(), size_);
  }

  std::span<const std::byte> bytes() const noexcept { return {data_.get(), size_}; }

 private:
  static constexpr std::size_t kAlignment = 64;
  struct Free {
    void operator()(std::byte* data) const noexcept {
      ::operator delete (data, std::align_val_t{kAlignment});
    }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t size_;
};

}  // namespace terrace::test
