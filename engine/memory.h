// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

namespace terrace {

inline constexpr std::size_t kCacheLine = 64;

/// Zero-filled anonymous memory, page aligned, reserved at once and given pages by the system on first touch,
/// so a large reservation costs only what is used. Where 2 MiB are left it asks for huge pages, which cost
/// fewer TLB misses, but are cleared as a whole for their first byte.
class VirtualBuffer {
 public:
  VirtualBuffer() = default;
  /// Throws Error{kOutOfMemory}; `what` names the purpose in the message. No huge pages below `huge_from`.
  VirtualBuffer(std::size_t bytes, const std::string& what, std::size_t huge_from = 0);
  VirtualBuffer(VirtualBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  VirtualBuffer& operator=(VirtualBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~VirtualBuffer();

  /// Has the system give pages to [begin, begin + n) now, in one call instead of one fault for each. A hint.
  void commit(std::size_t begin, std::size_t n) const noexcept;

  std::byte* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }
  /// The buffer as an array of T.
  template <class T>
  std::span<T> as() const noexcept {
    return {reinterpret_cast<T*>(data_), bytes_ / sizeof(T)};
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// Scratch memory of one session: a bump allocator over a reservation made at session start.
/// Only the leader takes memory, in a phase in its own chunk. A Scope gives back all that was taken inside it.
class Workspace {
 public:
  Workspace() = default;
  explicit Workspace(std::size_t reserve_bytes);

  /// `n` uninitialised elements, 64-byte aligned. Throws Error{kInternal} when the reservation is exhausted.
  template <class T>
  T* take(std::size_t n) {
    static_assert(std::is_trivially_destructible_v<T>);  // nobody destroys what lies in it
    return static_cast<T*>(take_bytes(n * sizeof(T)));
  }
  /// Largest number of bytes ever in use; for reports.
  std::size_t high_water_bytes() const noexcept { return high_water_; }

  class Scope {
   public:
    explicit Scope(Workspace& ws) noexcept : ws_(ws), mark_(ws.used_) {}
    ~Scope() { ws_.used_ = mark_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Workspace& ws_;
    std::size_t mark_;
  };

 private:
  void* take_bytes(std::size_t bytes);

  VirtualBuffer buffer_;
  std::size_t used_ = 0;
  std::size_t high_water_ = 0;
};

}  // namespace terrace
