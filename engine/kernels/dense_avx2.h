// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>

#include "engine/kernels/dense_impl.h"
#include "engine/kernels/dense_packed_q4.h"
#include "engine/kernels/four_floats_x86.h"
#include "engine/kernels/lanes_avx2.h"
#include "engine/kernels/words_x86.h"

// What the two tables for AVX2 registers share: everything but the products of bytes.

namespace terrace {
namespace {

struct Avx2Common : Avx2Lanes {
  // 2 x 3 outputs of two registers each, three registers of activations and one of weights: all sixteen.
  static constexpr std::size_t kRows = 2;
  static constexpr std::size_t kTokens = 3;
  static constexpr std::size_t kStreams = 4;
  static constexpr std::size_t kPrefetch = 0;

  static F keep(F v) noexcept {
    asm("" : "+x"(v.data));
    return v;
  }

  static F load_tight(const float* p) noexcept { return load(p); }
  static F load_tight(const std::uint16_t* p) noexcept {
    __m256i wide;  // the compiler would keep the byte order in a register and spill an accumulator for it
    asm("vpshufb %2, %1, %0" : "=x"(wide) : "x"(twice(p)), "m"(kWordsToUpperHalves));
    return _mm256_castsi256_ps(wide);
  }

  static constexpr bool kNanStoresZero = false;

  struct Words {
    static constexpr std::size_t kColumns = 32;
    struct Pair {
      __m256i low, high;
    };
    static Pair load(const std::int16_t* s) noexcept { return {load_bytes(s), load_bytes(s + 16)}; }
    static void store(std::int16_t* s, Pair v) noexcept {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(s), v.low);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(s + 16), v.high);
    }
    static Pair arranged(Pair v) noexcept {
      return {_mm256_permute2x128_si256(v.low, v.high, 0x20), _mm256_permute2x128_si256(v.low, v.high, 0x31)};
    }
    static Pair times_256(const std::int8_t* w) noexcept {
      const __m256i bytes = load_bytes(w), zero = _mm256_setzero_si256();
      return {_mm256_unpacklo_epi8(zero, bytes), _mm256_unpackhi_epi8(zero, bytes)};
    }
    static Pair set(std::int16_t a) noexcept { return {_mm256_set1_epi16(a), _mm256_set1_epi16(a)}; }
    static Pair multiply(Pair a, Pair b) noexcept {
      return {_mm256_mulhrs_epi16(a.low, b.low), _mm256_mulhrs_epi16(a.high, b.high)};
    }
    static Pair larger(Pair largest, Pair a) noexcept {
      return {_mm256_max_epi16(largest.low, _mm256_abs_epi16(a.low)),
              _mm256_max_epi16(largest.high, _mm256_abs_epi16(a.high))};
    }
    static std::uint32_t fold(Pair largest) noexcept {
      const __m256i both = _mm256_max_epi16(largest.low, largest.high);
      return largest_word(_mm_max_epi16(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)));
    }
    static void store_i8(std::int8_t* q, Pair v) noexcept {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm256_packs_epi16(v.low, v.high));
    }
  };
  static void unpack_q4(const std::uint8_t* p, std::int8_t* out) noexcept {
    const __m256i run = load_bytes(p);
    const auto centred = [](__m256i bytes) {
      return _mm256_sub_epi8(_mm256_and_si256(bytes, _mm256_set1_epi8(15)), _mm256_set1_epi8(8));
    };
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), centred(run));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + kQ4Group), centred(_mm256_srli_epi16(run, 4)));
  }

  /// The sums of the lanes of four registers.
  static __m128i sums_of_lanes(__m256i a, __m256i b, __m256i c, __m256i d) noexcept {
    const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  }
  static std::int32_t sum_of_lanes(__m256i v) noexcept {
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
  }

  /// A round of q4: everything but the products. Rows 0 and 1, then rows 2 and 3, four groups of each.
  /// `Products` has run_sums(run, x, g), the sums of groups g and g + 1: each half of the register holds two
  /// parts of the first and two of the second.
  template <class Products>
  struct Q4Round {
    struct W {
      __m256i run[2];  // of 64 columns: low nibbles the first 32, high nibbles the others
    };
    static W load_w(const std::uint8_t* p) noexcept { return {{load_bytes(p), load_bytes(p + 32)}}; }
    static __m256i low_nibbles(__m256i run) noexcept { return _mm256_and_si256(run, _mm256_set1_epi8(15)); }
    static __m256i high_nibbles(__m256i run) noexcept { return low_nibbles(_mm256_srli_epi16(run, 4)); }
    template <class X>
    static void sums(const W (&w)[4], const X& x, F (&out)[2]) noexcept {
      __m256i row[4];
      TERRACE_UNROLL
      for (std::size_t r = 0; r < 4; ++r) {
        row[r] =
            _mm256_hadd_epi32(Products::run_sums(w[r].run[0], x, 0), Products::run_sums(w[r].run[1], x, 2));
      }
      four_rows(row, out);
    }
    /// For rows whose sums are in two parts, half a register each.
    static void four_rows(const __m256i (&row)[4], F (&out)[2]) noexcept {
      const auto two_rows = [](__m256i a, __m256i b) {
        return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
      };
      out[0] = _mm256_cvtepi32_ps(two_rows(row[0], row[1]));
      out[1] = _mm256_cvtepi32_ps(two_rows(row[2], row[3]));
    }
    static void scales(const std::uint16_t* const (&p)[4], std::size_t i, F (&out)[2]) noexcept {
      out[0] = two_rows_of_scales(p[0] + i, p[1] + i);
      out[1] = two_rows_of_scales(p[2] + i, p[3] + i);
    }
    static void fold(const F (&sum)[2], float* out) noexcept {
      const auto halves = [](__m256 v) { return _mm256_add_ps(v, _mm256_permute_ps(v, 0x4e)); };
      const __m256 all = _mm256_hadd_ps(halves(sum[0]), halves(sum[1]));  // rows 0 0 2 2 | 1 1 3 3
      const __m128 even = _mm256_castps256_ps128(all);
      const __m128 odd = _mm256_extractf128_ps(all, 1);
      _mm_storeu_ps(out, _mm_unpacklo_ps(_mm_shuffle_ps(even, even, 0x08), _mm_shuffle_ps(odd, odd, 0x08)));
    }

   private:
    static __m256 two_rows_of_scales(const std::uint16_t* a, const std::uint16_t* b) noexcept {
      const __m128i both = _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(a)),
                                              _mm_loadl_epi64(reinterpret_cast<const __m128i*>(b)));
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(both), 16));
    }
  };

  // Four streams, as the dot kernels have.
  static std::uint64_t read(const void* data, std::size_t n) noexcept {
    constexpr std::size_t kLine = 64;
    const char* const p = static_cast<const char*>(data);
    const std::size_t part = n / kLine / 4 * kLine;
    __m256i sum[4] = {};
    for (std::size_t i = 0; i < part; i += kLine) {
      TERRACE_UNROLL
      for (std::size_t k = 0; k < 4; ++k) {
        const char* const line = p + k * part + i;
        sum[k] = _mm256_xor_si256(sum[k], _mm256_xor_si256(load_bytes(line), load_bytes(line + kLine / 2)));
      }
    }
    for (std::size_t i = 4 * part; i < n; i += kLine / 2)
      sum[0] = _mm256_xor_si256(sum[0], load_bytes(p + i));
    const __m256i all = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
    const __m128i two = _mm_xor_si128(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    return static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_xor_si128(two, _mm_unpackhi_epi64(two, two))));
  }
};

/// A group's sums for sixteen activation rows, or columns of a pack.
struct Halves {
  __m256i half[2];
};

/// What dot_packed_q4() needs, whatever instruction multiplies; see there.
struct PackedQ4Avx2 {
  /// Nibbles as they are, 0..15.
  static void unpack(const std::uint8_t* p, std::int8_t* out) noexcept {
    const __m256i run = load_bytes(p);
    const __m256i mask = _mm256_set1_epi8(15);
    _mm256_store_si256(reinterpret_cast<__m256i*>(out), _mm256_and_si256(run, mask));
    _mm256_store_si256(reinterpret_cast<__m256i*>(out + kQ4Group),
                       _mm256_and_si256(_mm256_srli_epi16(run, 4), mask));
  }
  static void store(const PackTotals& totals, const QuantizedRow* x, std::size_t n_tokens, float* y,
                    std::size_t y_stride) noexcept {
    for (std::size_t t = 0; t < n_tokens; ++t) {
      for (std::size_t r = 0; r < kPackRows; ++r) y[t * y_stride + r] = totals.of[r][t] * x[t].scale;
    }
  }
};

/// A pack for q4 weights. Packs for q8 were tried with AVX-VNNI, and gained too little.
inline void pack_q4(const QuantizedRow* x, std::size_t n, std::size_t d, std::byte* pack) noexcept {
  constexpr std::size_t kQuad = 4;
  for (std::size_t r = 0; r < kPackRows; ++r) {
    for (std::size_t c = 0; c < d; c += kQuad) {
      std::byte* const to = pack + c * kPackRows + r * kQuad;
      r < n ? std::memcpy(to, x[r].q + c, kQuad) : std::memset(to, 0, kQuad);
    }
  }
  auto* const sums = reinterpret_cast<std::int32_t*>(pack + pack_bytes(d));
  for (std::size_t r = 0; r < kPackRows; ++r) {
    for (std::size_t g = 0; g < d / kQ4Group; ++g) {
      std::int32_t sum = 0;
      for (std::size_t i = 0; r < n && i < kQ4Group; ++i) sum += x[r].q[g * kQ4Group + i];
      sums[g * kPackRows + r] = -8 * sum;
    }
  }
}

}  // namespace
}  // namespace terrace
