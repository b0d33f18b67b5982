// SPDX-License-Identifier: Apache-2.0
#include "attention/kernels/attention_avx512.h"

namespace terrace {
namespace {

struct Avx512 : Avx512Common {
  // As for AVX2: |x| times k with the sign of x.
  struct Q8 : Q8Common {
    static Sum start(std::int32_t /*x_sum*/) noexcept { return zero(); }
    static Keys load_keys(const std::int8_t* p) noexcept { return load_bytes(p); }
    static Sum add_key(Sum sum, Keys k, const std::int8_t* x) noexcept {
      const __m512i signs = broadcast_four(x);
      const __m512i signed_k = _mm512_mask_sub_epi8(k, _mm512_movepi8_mask(signs), zero(), k);
      return add(sum, _mm512_abs_epi8(signs), signed_k);
    }
    static Sum add_value(Sum sum, Values v, const std::int8_t* w) noexcept {
      return add(sum, broadcast_four(w), v);
    }
    /// u without a sign.
    static Sum add(Sum sum, __m512i u, __m512i s) noexcept {
      return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(u, s), _mm512_set1_epi16(1)));
    }
  };

  struct Q4 : Q4Common {
    static Q8::Sum add(Q8::Sum sum, Nibbles n, const std::int8_t* x) noexcept {
      return Q8::add(sum, n, broadcast_four(x));
    }
  };
};

constexpr AttentionKernels kTable = make_attention_kernels<Avx512>(Isa::kAvx512, "avx512");

}  // namespace

const AttentionKernels& attention_kernels_avx512() noexcept { return kTable; }

}  // namespace terrace
