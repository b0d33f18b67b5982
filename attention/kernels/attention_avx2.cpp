// SPDX-License-Identifier: Apache-2.0
#include "attention/kernels/attention_avx2.h"

namespace terrace {
namespace {

struct Avx2 : Avx2Common {
  // There is an unsigned by signed product only: |x| times k with the sign of x; weights have no sign. It
  // adds up two products in 16 bits, and 2 * 127 * 127 fits.
  struct Q8 : Q8Common {
    static Sum start(std::int32_t /*x_sum*/) noexcept { return zero(); }
    static Keys load_keys(const std::int8_t* p) noexcept { return load_bytes(p); }
    static Sum add_key(Sum sum, Keys k, const std::int8_t* x) noexcept {
      const __m256i signs = broadcast_four(x);
      return add(sum, _mm256_abs_epi8(signs), _mm256_sign_epi8(k, signs));
    }
    static Sum add_value(Sum sum, Values v, const std::int8_t* w) noexcept {
      return add(sum, broadcast_four(w), v);
    }
    /// u without a sign.
    static Sum add(Sum sum, __m256i u, __m256i s) noexcept {
      return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)));
    }
  };

  struct Q4 : Q4Common {
    static Q8::Sum add(Q8::Sum sum, Nibbles n, const std::int8_t* x) noexcept {
      return Q8::add(sum, n, broadcast_four(x));
    }
  };
};

constexpr AttentionKernels kTable = make_attention_kernels<Avx2>(Isa::kAvx2, "avx2");

}  // namespace

const AttentionKernels& attention_kernels_avx2() noexcept { return kTable; }

}  // namespace terrace
