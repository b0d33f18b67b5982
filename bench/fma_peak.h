// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>

#include "engine/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// What one core can multiply and add at most with the registers of an instruction set: independent chains of
// fused multiply-adds and nothing else. The yardstick of kernels that work on cached data.

namespace terrace::bench {

/// Steps of every chain in a call of a peak loop.
inline constexpr std::size_t kPeakSteps = 200000;

#if defined(__x86_64__)
/// Twelve chains hide a latency of four cycles on two units, with room for a slower machine.
inline constexpr std::size_t kChains = 12;

[[gnu::target("avx2,fma"), gnu::noinline]] inline float fma_chains_avx2() {
  __m256 sum[kChains];
  for (auto& s : sum) s = _mm256_set1_ps(1.0F);
  const __m256 a = _mm256_set1_ps(0.999F);
  const __m256 b = _mm256_set1_ps(0.001F);
  for (std::size_t i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (auto& s : sum) s = _mm256_fmadd_ps(s, a, b);
  }
  float total = 0;
  for (const auto& s : sum) total += s[0];
  return total;
}
[[gnu::target("avx512f"), gnu::noinline]] inline float fma_chains_avx512() {
  __m512 sum[kChains];
  for (auto& s : sum) s = _mm512_set1_ps(1.0F);
  const __m512 a = _mm512_set1_ps(0.999F);
  const __m512 b = _mm512_set1_ps(0.001F);
  for (std::size_t i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (auto& s : sum) s = _mm512_fmadd_ps(s, a, b);
  }
  float total = 0;
  for (const auto& s : sum) total += s[0];
  return total;
}
#elif defined(__aarch64__)
/// Large cores have four units with a latency of four cycles; 24 chains leave room among 32 registers.
inline constexpr std::size_t kChains = 24;

[[gnu::noinline]] inline float fma_chains_neon() {
  float32x4_t sum[kChains];
  for (auto& s : sum) s = vdupq_n_f32(1.0F);
  const float32x4_t a = vdupq_n_f32(0.001F);
  const float32x4_t b = vdupq_n_f32(0.999F);
  for (std::size_t i = 0; i < kPeakSteps; ++i) {
    // FMLA adds to the register it overwrites: s += a * b stays in range and needs no copy.
#pragma GCC unroll 24
    for (auto& s : sum) s = vfmaq_f32(s, a, b);
  }
  float total = 0;
  for (const auto& s : sum) total += vgetq_lane_f32(s, 0);
  return total;
}
#else
inline constexpr std::size_t kChains = 0;
#endif

/// f32 multiply-adds per second of one core; 0 where there is no loop for the instruction set.
inline double fma_peak([[maybe_unused]] Isa isa) {
  float (*loop)() = nullptr;
  std::size_t width = 0;
#if defined(__x86_64__)
  if (isa == Isa::kAvx2 || isa == Isa::kAvxVnni) loop = fma_chains_avx2, width = 8;
  if (isa == Isa::kAvx512 || isa == Isa::kAvx512Vnni || isa == Isa::kAvx512Amx)
    loop = fma_chains_avx512, width = 16;
#elif defined(__aarch64__)
  if (isa == Isa::kNeon || isa == Isa::kNeonDot) loop = fma_chains_neon, width = 4;
#endif
  if (!loop) return 0.0;
  double best = 0.0;
  for (int i = 0; i < 20; ++i) {
    const auto start = std::chrono::steady_clock::now();
    [[maybe_unused]] volatile const float result = loop();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    const double rate = static_cast<double>(kPeakSteps * kChains * width) / elapsed.count();
    best = rate > best ? rate : best;
  }
  return best;
}

}  // namespace terrace::bench
