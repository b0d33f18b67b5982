// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/dense_avx512.h"
#include "engine/kernels/dense_packed_avx512.h"

namespace terrace {
namespace {

/// Sums of four neighbouring products: u (0..127) * s (-127..127), and twice 127 * 127 still fits 16 bits.
__m512i dot4(__m512i u, __m512i s) noexcept {
  return _mm512_madd_epi16(_mm512_maddubs_epi16(u, s), _mm512_set1_epi16(1));
}

struct Avx512 : Avx512Common {
  // There is an unsigned by signed product only: |x| times w with the sign of x.
  struct Q8 {
    static constexpr std::size_t kBytes = 64;
    static constexpr std::size_t kRows = 4;
    static constexpr std::size_t kTokens = 4;
    static constexpr std::size_t kStreams = 4;
    static constexpr std::size_t kChains = 2;
    using Sum = __m512i;
    struct X {
      __mmask64 negative;
      __m512i magnitudes;
    };
    static Sum zero() noexcept { return _mm512_setzero_si512(); }
    static X prepare_x(__m512i x) noexcept { return {_mm512_movepi8_mask(x), _mm512_abs_epi8(x)}; }
    static X load_x(const std::int8_t* q) noexcept { return prepare_x(load_bytes(q)); }
    static __m512i load_w(const std::int8_t* p) noexcept { return load_bytes(p); }
    static X load_part_x(const std::int8_t* q, std::size_t n) noexcept { return prepare_x(load_part(q, n)); }
    static __m512i load_part_w(const std::int8_t* p, std::size_t n) noexcept { return load_part(p, n); }
    static Sum add(Sum sum, __m512i w, X x) noexcept {
      const __m512i signed_w = _mm512_mask_sub_epi8(w, x.negative, _mm512_setzero_si512(), w);
      return _mm512_add_epi32(sum, dot4(x.magnitudes, signed_w));
    }
    static Sum merge(Sum a, Sum b) noexcept { return _mm512_add_epi32(a, b); }
    static std::int32_t total(Sum sum, std::int32_t /*x_sum*/) noexcept { return sum_of_lanes(sum); }
    static void put_four(Sum a, Sum b, Sum c, Sum d, const float* w_scale, const QuantizedRow& x, float* y,
                         std::size_t step) noexcept {
      put_scaled(sums_of_lanes(a, b, c, d), w_scale, x.scale, y, step);
    }
  };

  // (n - 8) x = n x - 8 x: the nibbles n are unsigned as they are, and 8 x is the same for all rows.
  struct Q4 : Q4Round<Q4> {
    static constexpr std::size_t kTokens = 2;
    static X load_x(const std::int8_t* q) noexcept {
      const W x = Q4Round<Q4>::activations(q);
      const __m512i eight = _mm512_set1_epi8(8);
      return {x, _mm512_maddubs_epi16(eight, x.low), _mm512_maddubs_epi16(eight, x.high)};
    }
    /// x_eight: 8 x, in pairs of columns.
    static __m512i products(__m512i w, __m512i x, __m512i x_eight) noexcept {
      const __m512i pairs = _mm512_sub_epi16(_mm512_maddubs_epi16(w, x), x_eight);
      return _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
    }
  };
};

// A sum of eight pairs is at most 8 * 2 * 15 * 127 = 30480: a group fits 16 bits.
struct Q4Vectors {
  static constexpr std::size_t kRows = 16;
  using Sums = __m512i;
  using X = __m512i;
  static X load_x(const std::byte* x) noexcept { return load_bytes(x); }
  static Sums start(const std::int32_t*) noexcept { return _mm512_setzero_si512(); }
  static void add(Sums& sums, const std::int8_t* w, X x) noexcept {
    sums = _mm512_add_epi16(sums, _mm512_maddubs_epi16(broadcast_four(w), x));
  }
  static void finish(Sums sums, const std::int32_t* minus_eight, Avx512Common::F (&out)[1]) noexcept {
    const __m512i products = _mm512_madd_epi16(sums, _mm512_set1_epi16(1));
    out[0] = _mm512_cvtepi32_ps(_mm512_add_epi32(products, load_bytes(minus_eight)));
  }
};

using PackedQ4 = PackedQ4ByVectors<Avx512Common, PackedQ4Avx512, Q4Vectors>;

constexpr DenseKernels make_table() noexcept {
  DenseKernels table = make_dense_kernels<Avx512>(Isa::kAvx512, "avx512");
  table.pack_q4 = pack_q4;
  table.dot_packed_q4 = dot_packed_q4<PackedQ4>;
  return table;
}

constexpr DenseKernels kTable = make_table();
constexpr DenseKernels kUnprefetched = make_unprefetched<Avx512>(kTable);

}  // namespace

const DenseKernels& dense_kernels_avx512(bool prefetch) noexcept { return prefetch ? kTable : kUnprefetched; }

}  // namespace terrace
