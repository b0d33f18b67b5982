// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "attention/kernels/attention_avx512.h"
#include "engine/kernels/lanes_avx512vnni.h"

// Products of bytes with VNNI: what the tables avx512vnni and avx512amx share.

namespace terrace {
namespace {

struct Avx512Vnni : Avx512Common {
  // dpbusd multiplies unsigned by signed bytes: k + 128 is unsigned, and 128 times the sum of x is subtracted
  // beforehand. Modulo 2^32: intermediate sums may leave the range of int32, the result does not.
  struct Q8 : Q8Common {
    static Sum start(std::int32_t x_sum) noexcept { return _mm512_set1_epi32(-128 * x_sum); }
    static Keys load_keys(const std::int8_t* p) noexcept {
      return _mm512_xor_si512(load_bytes(p), _mm512_set1_epi8(-128));
    }
    static Sum add_key(Sum sum, Keys k, const std::int8_t* x) noexcept {
      return add_products(sum, k, broadcast_four(x));
    }
    static Sum add_value(Sum sum, Values v, const std::int8_t* w) noexcept {
      return add_products(sum, broadcast_four(w), v);
    }
  };

  struct Q4 : Q4Common {
    static Q8::Sum add(Q8::Sum sum, Nibbles n, const std::int8_t* x) noexcept {
      return add_products(sum, n, broadcast_four(x));
    }
  };
};

}  // namespace
}  // namespace terrace
