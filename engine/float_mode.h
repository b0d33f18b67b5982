// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace terrace {

/// While alive, this thread flushes denormal inputs and results to zero; the destructor restores the caller's
/// mode. Denormals make kernels many times slower (docs/performance.md), so leader and workers all hold one.
class FlushDenormals {
 public:
  FlushDenormals() noexcept : saved_(read()) { write(saved_ | kBits); }
  ~FlushDenormals() { write(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr std::uint64_t kBits = 0x8040;  // MXCSR: flush-to-zero, denormals-are-zero
  static std::uint64_t read() noexcept { return _mm_getcsr(); }
  static void write(std::uint64_t mode) noexcept { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
  static constexpr std::uint64_t kBits = std::uint64_t{1} << 24;  // FPCR.FZ
  static std::uint64_t read() noexcept {
    std::uint64_t mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void write(std::uint64_t mode) noexcept { asm volatile("msr fpcr, %0" ::"r"(mode)); }
#else
  static constexpr std::uint64_t kBits = 0;
  static std::uint64_t read() noexcept { return 0; }
  static void write(std::uint64_t) noexcept {}
#endif

  std::uint64_t saved_;
};

}  // namespace terrace
