// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "engine/error.h"

/// Where session state is written to and read from. State files are little-endian, like the model file.
namespace terrace {

static_assert(std::endian::native == std::endian::little, "state and model files are little-endian");

/// Takes bytes in order. Throws Error{kIo} when they cannot be stored.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual void write(std::span<const std::byte> bytes) = 0;
};

/// Gives bytes in order.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Fills `bytes` completely. Throws Error{kBadFile} when fewer are left.
  virtual void read(std::span<std::byte> bytes) = 0;
};

/// A sink that keeps everything in memory.
class MemorySink final : public ByteSink {
 public:
  void write(std::span<const std::byte> bytes) override {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  std::span<const std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

/// Reads from memory that outlives it.
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::span<const std::byte> bytes) noexcept : left_(bytes) {}

  void read(std::span<std::byte> bytes) override {
    TERRACE_CHECK(bytes.size() <= left_.size(), kBadFile,
                  "state ends too early: expected " + std::to_string(bytes.size()) + " more bytes, found " +
                      std::to_string(left_.size()));
    if (!bytes.empty()) std::memcpy(bytes.data(), left_.data(), bytes.size());
    left_ = left_.subspan(bytes.size());
  }
  /// Bytes not read yet.
  std::size_t left() const noexcept { return left_.size(); }

 private:
  std::span<const std::byte> left_;
};

/// Writes `n` values as they lie in memory.
template <class T>
requires std::is_trivially_copyable_v<T>
void write_array(ByteSink& sink, const T* values, std::size_t n) {
  sink.write(std::as_bytes(std::span(values, n)));
}

/// Reads `n` values. Throws Error{kBadFile} when fewer are left.
template <class T>
requires std::is_trivially_copyable_v<T>
void read_array(ByteSource& source, T* values, std::size_t n) {
  source.read(std::as_writable_bytes(std::span(values, n)));
}

inline void write_u64(ByteSink& sink, std::uint64_t value) { write_array(sink, &value, 1); }

/// Reads a number that must not exceed `most`; `what` names it. Throws Error{kBadFile}.
inline std::uint64_t read_u64(ByteSource& source, std::uint64_t most, std::string_view what) {
  std::uint64_t value = 0;
  read_array(source, &value, 1);
  TERRACE_CHECK(value <= most, kBadFile,
                "state: " + std::string(what) + " is " + std::to_string(value) + ", expected at most " +
                    std::to_string(most));
  return value;
}

/// Reads a number that must equal `expected`: a shape that the reader already knows. Throws Error{kBadFile}.
inline void expect_u64(ByteSource& source, std::uint64_t expected, std::string_view what) {
  std::uint64_t value = 0;
  read_array(source, &value, 1);
  TERRACE_CHECK(value == expected, kBadFile,
                "state: " + std::string(what) + " is " + std::to_string(value) + ", expected " +
                    std::to_string(expected));
}

}  // namespace terrace
