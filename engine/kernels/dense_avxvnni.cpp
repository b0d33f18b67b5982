// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/dense_avx2.h"

// AVX-VNNI: products of bytes in AVX2 registers, for CPUs without AVX-512 (Alder Lake and later).

namespace terrace {
namespace {

/// sum + products of unsigned bytes u with signed bytes s, four neighbours to a lane: as in
/// lanes_avx512vnni.h. Without the prefix assemblers take the AVX-512 instruction of this name.
__m256i add_products(__m256i sum, __m256i u, __m256i s) noexcept {
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(u), "x"(s));
  return sum;
}

struct AvxVnni : Avx2Common {
  // Unsigned by signed bytes: w + 128 is unsigned, and 128 times the sum of x is taken off at the end.
  struct Q8 {
    static constexpr std::size_t kBytes = 32;
    static constexpr std::size_t kRows = 4;
    static constexpr std::size_t kTokens = 2;
    static constexpr std::size_t kStreams = 4;
    static constexpr std::size_t kChains = 4;
    using Sum = __m256i;
    using X = __m256i;
    static Sum zero() noexcept { return _mm256_setzero_si256(); }
    static X load_x(const std::int8_t* q) noexcept { return load_bytes(q); }
    static __m256i load_w(const std::int8_t* p) noexcept {
      return _mm256_xor_si256(load_bytes(p), _mm256_set1_epi8(-128));
    }
    static X load_part_x(const std::int8_t* q, std::size_t n) noexcept {
      return load_x(PartialBytes<kBytes>(q, n).bytes);
    }
    static __m256i load_part_w(const std::int8_t* p, std::size_t n) noexcept {
      return load_w(PartialBytes<kBytes>(p, n).bytes);
    }
    static Sum add(Sum sum, __m256i w, X x) noexcept { return add_products(sum, w, x); }
    static Sum merge(Sum a, Sum b) noexcept { return _mm256_add_epi32(a, b); }
    static std::int32_t total(Sum sum, std::int32_t x_sum) noexcept {
      // Modulo 2^32: the sum with the offset may pass the range of int32, the difference does not.
      return static_cast<std::int32_t>(static_cast<std::uint32_t>(sum_of_lanes(sum)) -
                                       128U * static_cast<std::uint32_t>(x_sum));
    }
    static void put_four(Sum a, Sum b, Sum c, Sum d, const float* w_scale, const QuantizedRow& x, float* y,
                         std::size_t step) noexcept {
      const auto offset = static_cast<std::int32_t>(128U * static_cast<std::uint32_t>(x.sum));
      const __m128i totals = _mm_sub_epi32(sums_of_lanes(a, b, c, d), _mm_set1_epi32(offset));
      put_scaled(totals, w_scale, x.scale, y, step);
    }
  };

  // (n - 8) x = n x - 8 x: the nibbles n are unsigned as they are, and -8 x is the same for all rows.
  struct Q4 : Q4Round<Q4> {
    static constexpr std::size_t kTokens = 2;
    struct X {
      __m256i group[kQ4Sums];
      __m256i minus_eight[kQ4Sums];  // -8 x, in sums of four columns
    };
    static X load_x(const std::int8_t* q) noexcept {
      X x;
      TERRACE_UNROLL
      for (std::size_t g = 0; g < kQ4Sums; ++g) {
        const __m256i zero = _mm256_setzero_si256();
        x.group[g] = load_bytes(q + g * kQ4Group);
        x.minus_eight[g] = _mm256_sub_epi32(zero, add_products(zero, _mm256_set1_epi8(8), x.group[g]));
      }
      return x;
    }
    static __m256i run_sums(__m256i run, const X& x, std::size_t g) noexcept {
      return _mm256_hadd_epi32(add_products(x.minus_eight[g], low_nibbles(run), x.group[g]),
                               add_products(x.minus_eight[g + 1], high_nibbles(run), x.group[g + 1]));
    }
  };
};

struct Q4Vectors {
  static constexpr std::size_t kRows = 4;
  using Sums = Halves;
  using X = Halves;
  static X load_x(const std::byte* x) noexcept { return {{load_bytes(x), load_bytes(x + 32)}}; }
  static Sums start(const std::int32_t* minus_eight) noexcept {
    return {{load_bytes(minus_eight), load_bytes(minus_eight + 8)}};
  }
  static void add(Sums& sums, const std::int8_t* w, X x) noexcept {
    const __m256i weights = broadcast_four(w);
    TERRACE_UNROLL
    for (std::size_t p = 0; p < 2; ++p) sums.half[p] = add_products(sums.half[p], weights, x.half[p]);
  }
  static void finish(const Sums& sums, const std::int32_t*, Avx2Common::F (&out)[2]) noexcept {
    TERRACE_UNROLL
    for (std::size_t p = 0; p < 2; ++p) out[p] = _mm256_cvtepi32_ps(sums.half[p]);
  }
};

using PackedQ4 = PackedQ4ByVectors<Avx2Common, PackedQ4Avx2, Q4Vectors>;

constexpr DenseKernels make_table() noexcept {
  DenseKernels table = make_dense_kernels<AvxVnni>(Isa::kAvxVnni, "avxvnni");
  table.pack_q4 = pack_q4;
  table.dot_packed_q4 = dot_packed_q4<PackedQ4>;
  return table;
}

constexpr DenseKernels kTable = make_table();

}  // namespace

const DenseKernels& dense_kernels_avxvnni() noexcept { return kTable; }

}  // namespace terrace
