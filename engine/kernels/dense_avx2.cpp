// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/dense_avx2.h"

namespace terrace {
namespace {

/// Sums of four neighbouring products: u (0..127) * s (-127..127), and twice 127 * 127 still fits 16 bits.
__m256i dot4(__m256i u, __m256i s) noexcept {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1));
}

struct Avx2 : Avx2Common {
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
    static std::int32_t total(Sum sum, std::int32_t /*x_sum*/) noexcept { return sum_of_lanes(sum); }
    static void put_four(Sum a, Sum b, Sum c, Sum d, const float* w_scale, const QuantizedRow& x, float* y,
                         std::size_t step) noexcept {
      put_scaled(sums_of_lanes(a, b, c, d), w_scale, x.scale, y, step);
    }
  };

  // (n - 8) x = n x - 8 x: the nibbles n are unsigned as they are, and 8 x is the same for all rows.
  struct Q4 : Q4Round<Q4> {
    static constexpr std::size_t kTokens = 2;
    struct X {
      __m256i group[kQ4Sums];
      __m256i eight[kQ4Sums];  // 8 x, in pairs of columns
    };
    static X load_x(const std::int8_t* q) noexcept {
      X x;
      TERRACE_UNROLL
      for (std::size_t g = 0; g < kQ4Sums; ++g) {
        x.group[g] = load_bytes(q + g * kQ4Group);
        x.eight[g] = _mm256_maddubs_epi16(_mm256_set1_epi8(8), x.group[g]);
      }
      return x;
    }
    /// A part of a group is at most 8 * 15 * 127 = 15240 while it has 16 bits.
    static __m256i run_sums(__m256i run, const X& x, std::size_t g) noexcept {
      const __m256i first = _mm256_maddubs_epi16(low_nibbles(run), x.group[g]);
      const __m256i second = _mm256_maddubs_epi16(high_nibbles(run), x.group[g + 1]);
      const __m256i pairs =
          _mm256_hadd_epi16(_mm256_sub_epi16(first, x.eight[g]), _mm256_sub_epi16(second, x.eight[g + 1]));
      return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
  };
};

// A sum of eight pairs is at most 8 * 2 * 15 * 127 = 30480: a group fits 16 bits.
struct Q4Vectors {
  static constexpr std::size_t kRows = 4;
  using Sums = Halves;
  using X = Halves;
  static X load_x(const std::byte* x) noexcept { return {{load_bytes(x), load_bytes(x + 32)}}; }
  static Sums start(const std::int32_t*) noexcept {
    return {{_mm256_setzero_si256(), _mm256_setzero_si256()}};
  }
  static void add(Sums& sums, const std::int8_t* w, X x) noexcept {
    const __m256i weights = broadcast_four(w);
    TERRACE_UNROLL
    for (std::size_t p = 0; p < 2; ++p) {
      sums.half[p] = _mm256_add_epi16(sums.half[p], _mm256_maddubs_epi16(weights, x.half[p]));
    }
  }
  static void finish(const Sums& sums, const std::int32_t* minus_eight, Avx2Common::F (&out)[2]) noexcept {
    TERRACE_UNROLL
    for (std::size_t p = 0; p < 2; ++p) {
      const __m256i products = _mm256_madd_epi16(sums.half[p], _mm256_set1_epi16(1));
      out[p] = _mm256_cvtepi32_ps(_mm256_add_epi32(products, load_bytes(minus_eight + 8 * p)));
    }
  }
};

using PackedQ4 = PackedQ4ByVectors<Avx2Common, PackedQ4Avx2, Q4Vectors>;

constexpr DenseKernels make_table() noexcept {
  DenseKernels table = make_dense_kernels<Avx2>(Isa::kAvx2, "avx2");
  table.pack_q4 = pack_q4;
  table.dot_packed_q4 = dot_packed_q4<PackedQ4>;
  return table;
}

constexpr DenseKernels kTable = make_table();

}  // namespace

const DenseKernels& dense_kernels_avx2() noexcept { return kTable; }

}  // namespace terrace
