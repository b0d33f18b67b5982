// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/dense_impl.h"
#include "engine/kernels/four_floats_x86.h"
#include "engine/kernels/lanes_avx2.h"

namespace terrace {
namespace {

/// Sums of four neighbouring products: u (0..127) * s (-127..127), and twice 127 * 127 still fits 16 bits.
__m256i dot4(__m256i u, __m256i s) noexcept {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1));
}

struct Avx2 : Avx2Lanes {
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
  static void store_i8(std::int8_t* q, const F* parts) noexcept {
    const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(parts[0]), _mm256_cvtps_epi32(parts[1]));
    const __m256i in_order = _mm256_permute4x64_epi64(words, 0xd8);  // packing works in each half by itself
    const __m128i low = _mm256_castsi256_si128(in_order);
    const __m128i high = _mm256_extracti128_si256(in_order, 1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm_packs_epi16(low, high));
  }
  static void unpack_q4(const std::uint8_t* p, std::int8_t* out) noexcept {
    const Q4::W w = Q4::load_w(p);
    const __m256i eight = _mm256_set1_epi8(8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_sub_epi8(w.even, eight));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + kQ4Group), _mm256_sub_epi8(w.odd, eight));
  }

  // There is an unsigned by signed product only: |x| times w with the sign of x.
  struct Q8 {
    static constexpr std::size_t kBytes = 32;
    static constexpr std::size_t kRows = 4;
    static constexpr std::size_t kTokens = 2;
    static constexpr std::size_t kStreams = 4;
    static constexpr std::size_t kChains = 2;
    using Sum = __m256i;
    struct X {
      __m256i signs;
      __m256i magnitudes;
    };
    static Sum zero() noexcept { return _mm256_setzero_si256(); }
    static X load_x(const std::int8_t* q) noexcept {
      const __m256i x = load_bytes(q);
      return {x, _mm256_abs_epi8(x)};
    }
    static __m256i load_w(const std::int8_t* p) noexcept { return load_bytes(p); }
    static X load_part_x(const std::int8_t* q, std::size_t n) noexcept {
      return load_x(PartialBytes<kBytes>(q, n).bytes);
    }
    static __m256i load_part_w(const std::int8_t* p, std::size_t n) noexcept {
      return load_w(PartialBytes<kBytes>(p, n).bytes);
    }
    static Sum add(Sum sum, __m256i w, X x) noexcept {
      return _mm256_add_epi32(sum, dot4(x.magnitudes, _mm256_sign_epi8(w, x.signs)));
    }
    static Sum merge(Sum a, Sum b) noexcept { return _mm256_add_epi32(a, b); }
    static std::int32_t total(Sum sum, std::int32_t /*x_sum*/) noexcept {
      const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
      const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
      return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
    }
    static void put_four(Sum a, Sum b, Sum c, Sum d, const float* w_scale, const QuantizedRow& x, float* y,
                         std::size_t step) noexcept {
      const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
      const __m128i totals = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
      put_scaled(totals, w_scale, x.scale, y, step);
    }
  };

  // (n - 8) x = n x - 8 x: the nibbles n are unsigned as they are, and 8 x is the same for all rows.
  struct Q4 {
    static constexpr std::size_t kRows = 2;
    static constexpr std::size_t kTokens = 2;
    static constexpr std::size_t kStreams = 4;
    struct X {
      __m256i even, odd;              // columns 0..31 and 32..63
      __m256i even_eight, odd_eight;  // 8 x, in pairs of columns
    };
    struct W {
      __m256i even, odd;
    };
    static X load_x(const std::int8_t* q) noexcept {
      const __m256i eight = _mm256_set1_epi8(8);
      const __m256i even = load_bytes(q);
      const __m256i odd = load_bytes(q + kQ4Group);
      return {even, odd, _mm256_maddubs_epi16(eight, even), _mm256_maddubs_epi16(eight, odd)};
    }
    static W load_w(const std::uint8_t* p) noexcept {
      const __m256i low = _mm256_set1_epi8(15);
      const __m256i bytes = load_bytes(p);
      return {_mm256_and_si256(bytes, low), _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low)};
    }
    static void lanes(const W& w, const X& x, F* out) noexcept {
      out[0] = sums(w.even, x.even, x.even_eight);
      out[1] = sums(w.odd, x.odd, x.odd_eight);
    }
    static void scales(const std::uint16_t* p, F* out) noexcept {
      std::int32_t two;
      std::memcpy(&two, p, sizeof two);
      const __m256i both = _mm256_set1_epi32(two);
      out[0] = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
      out[1] = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000U))));
    }

   private:
    static __m256 sums(__m256i w, __m256i x, __m256i x_eight) noexcept {
      const __m256i pairs = _mm256_sub_epi16(_mm256_maddubs_epi16(w, x), x_eight);
      return _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
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

constexpr DenseKernels kTable = make_dense_kernels<Avx2>(Isa::kAvx2, "avx2");

}  // namespace

const DenseKernels& dense_kernels_avx2() noexcept { return kTable; }

}  // namespace terrace
