// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/dense_impl.h"
#include "engine/kernels/dense_packed_q4.h"
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
    const __m256i run = load_bytes(p);
    const auto centred = [](__m256i bytes) {
      return _mm256_sub_epi8(_mm256_and_si256(bytes, _mm256_set1_epi8(15)), _mm256_set1_epi8(8));
    };
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), centred(run));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + kQ4Group), centred(_mm256_srli_epi16(run, 4)));
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
    static constexpr std::size_t kTokens = 2;
    struct X {
      __m256i group[kQ4Sums];
      __m256i eight[kQ4Sums];  // 8 x, in pairs of columns
    };
    struct W {
      __m256i run[2];  // of 64 columns: low nibbles the first 32, high nibbles the others
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
    static W load_w(const std::uint8_t* p) noexcept { return {{load_bytes(p), load_bytes(p + 32)}}; }
    // Rows 0 and 1, then rows 2 and 3, four groups of each.
    static void sums(const W (&w)[4], const X& x, F (&out)[2]) noexcept {
      out[0] = _mm256_cvtepi32_ps(two_rows(row_sums(w[0], x), row_sums(w[1], x)));
      out[1] = _mm256_cvtepi32_ps(two_rows(row_sums(w[2], x), row_sums(w[3], x)));
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
    /// Sums of the four groups of a row, in two parts: a half of the register each.
    static __m256i row_sums(const W& w, const X& x) noexcept {
      return _mm256_hadd_epi32(run_sums(w.run[0], x, 0), run_sums(w.run[1], x, 2));
    }
    /// Of the two groups of a run: in each half of the register two parts of the first, two of the second.
    /// A part of a group is at most 8 * 15 * 127 = 15240 while it has 16 bits.
    static __m256i run_sums(__m256i run, const X& x, std::size_t g) noexcept {
      const __m256i low = _mm256_set1_epi8(15);
      const __m256i first = _mm256_maddubs_epi16(_mm256_and_si256(run, low), x.group[g]);
      const __m256i second =
          _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(run, 4), low), x.group[g + 1]);
      const __m256i pairs =
          _mm256_hadd_epi16(_mm256_sub_epi16(first, x.eight[g]), _mm256_sub_epi16(second, x.eight[g + 1]));
      return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
    static __m256i two_rows(__m256i a, __m256i b) noexcept {
      return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
    }
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

void pack_q4(const QuantizedRow* x, std::size_t n, std::size_t d, std::byte* pack) noexcept {
  constexpr std::size_t kQuad = 4;
  std::int32_t* sums = reinterpret_cast<std::int32_t*>(pack + pack_bytes(d));
  for (std::size_t r = 0; r < kPackRows; ++r) {
    for (std::size_t c = 0; c < d; c += kQuad) {
      std::byte* const to = pack + c * kPackRows + r * kQuad;
      r < n ? std::memcpy(to, x[r].q + c, kQuad) : std::memset(to, 0, kQuad);
    }
    for (std::size_t g = 0; g < d / kQ4Group; ++g) {
      std::int32_t sum = 0;
      for (std::size_t i = 0; r < n && i < kQ4Group; ++i) sum += x[r].q[g * kQ4Group + i];
      sums[g * kPackRows + r] = -8 * sum;
    }
  }
}

struct PackedQ4 {
  // A sum of eight pairs is at most 8 * 2 * 15 * 127 = 30480: a group fits 16 bits.
  struct Vectors {
    static constexpr std::size_t kRows = 4;
    struct Sums {
      __m256i half[2];
    };
    using X = Sums;
    static X load_x(const std::byte* x) noexcept { return {{load_bytes(x), load_bytes(x + 32)}}; }
    static Sums start(const std::int32_t*) noexcept {
      return {{_mm256_setzero_si256(), _mm256_setzero_si256()}};
    }
    static void add(Sums& sums, const std::int8_t* w, X x) noexcept {
      std::int32_t four;
      std::memcpy(&four, w, sizeof four);
      const __m256i weights = _mm256_set1_epi32(four);
      TERRACE_UNROLL
      for (std::size_t p = 0; p < 2; ++p) {
        sums.half[p] = _mm256_add_epi16(sums.half[p], _mm256_maddubs_epi16(weights, x.half[p]));
      }
    }
    static void finish(const Sums& sums, const std::int32_t* minus_eight, Avx2::F (&out)[2]) noexcept {
      TERRACE_UNROLL
      for (std::size_t p = 0; p < 2; ++p) {
        const __m256i products = _mm256_madd_epi16(sums.half[p], _mm256_set1_epi16(1));
        out[p] = _mm256_cvtepi32_ps(_mm256_add_epi32(products, load_bytes(minus_eight + 8 * p)));
      }
    }
  };
  /// Nibbles as they are, 0..15.
  static void unpack(const std::uint8_t* p, std::int8_t* out) noexcept {
    const __m256i run = load_bytes(p);
    const __m256i mask = _mm256_set1_epi8(15);
    _mm256_store_si256(reinterpret_cast<__m256i*>(out), _mm256_and_si256(run, mask));
    _mm256_store_si256(reinterpret_cast<__m256i*>(out + kQ4Group),
                       _mm256_and_si256(_mm256_srli_epi16(run, 4), mask));
  }
  static void multiply(const UnpackedQ4& rows, std::size_t n_groups, const std::byte* pack,
                       const std::int32_t* sums, PackTotals& totals) noexcept {
    multiply_group_by_group<Avx2, Vectors>(rows, n_groups, pack, sums, totals);
  }
  static void store(const PackTotals& totals, const QuantizedRow* x, std::size_t n_tokens, float* y,
                    std::size_t y_stride) noexcept {
    for (std::size_t t = 0; t < n_tokens; ++t) {
      for (std::size_t r = 0; r < kPackRows; ++r) y[t * y_stride + r] = totals.of[r][t] * x[t].scale;
    }
  }
};

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
