// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstring>

#include "attention/kernels/attention_impl.h"

// One float at a time: what every other table must reproduce bit for bit. fmaf is the C library's, which uses
// the CPU's instruction where there is one.

namespace terrace {
namespace {

struct Scalar {
  using F = float;
  static constexpr std::size_t kWidth = 1;
  static constexpr std::size_t kAccumulators = kLanes;

  static F load(const float* p) noexcept { return *p; }
  static F load(const std::uint16_t* p) noexcept { return from_bits(std::uint32_t{*p} << 16); }
  static F load(const std::int8_t* p) noexcept { return static_cast<float>(*p); }
  static void store(float* p, F x) noexcept { *p = x; }
  static F set(float a) noexcept { return a; }
  static F fma(F a, F b, F c) noexcept { return __builtin_fmaf(a, b, c); }
  static F add(F a, F b) noexcept { return a + b; }
  static F sub(F a, F b) noexcept { return a - b; }
  static F mul(F a, F b) noexcept { return a * b; }
  static F max(F a, F b) noexcept { return a > b ? a : b; }
  static F if_less(F a, F b, F yes, F no) noexcept { return a < b ? yes : no; }
  static F if_equal(F a, F b, F yes, F no) noexcept { return a == b ? yes : no; }
  static F abs(F a) noexcept { return __builtin_fabsf(a); }
  static void transpose(F* /*rows*/) noexcept {}  // one by one
  static F times_power(F p, F n) noexcept { return from_bits(to_bits(p) + (to_bits(n) << 23)); }

  using Ints = std::int32_t;
  static Ints to_ints(F x) noexcept {
    constexpr F kRound = 12582912.0F;  // 1.5 * 2^23: adding it leaves no bits for a fraction
    return static_cast<Ints>(x + kRound - kRound);
  }
  static void store_i8(std::int8_t* q, const Ints* parts) noexcept {
    for (std::size_t l = 0; l < kLanes; ++l) q[l] = static_cast<std::int8_t>(parts[l]);
  }

  struct Q8 {
    static constexpr std::size_t kAccumulators = 2 * kLanes;
    static constexpr std::size_t kRows = 4;
    using Sum = std::int32_t;
    using Keys = const std::int8_t*;
    using Values = const std::int8_t*;
    static Sum start(std::int32_t /*x_sum*/) noexcept { return 0; }
    static Sum zero() noexcept { return 0; }
    static Keys load_keys(const std::int8_t* p) noexcept { return p; }
    static Values load_values(const std::int8_t* p) noexcept { return p; }
    static Sum add_key(Sum sum, Keys k, const std::int8_t* x) noexcept {
      for (std::size_t i = 0; i < kQuad; ++i) sum += k[i] * x[i];
      return sum;
    }
    static Sum add_value(Sum sum, Values v, const std::int8_t* w) noexcept { return add_key(sum, v, w); }
    static F join(Sum high, Sum low) noexcept {
      return fma(static_cast<float>(high), kHighUnit, static_cast<float>(low));
    }
  };

  struct Q4 {
    struct Nibbles {
      std::uint8_t four[kQuad];
    };
    static void load(const std::uint8_t* p, Nibbles* low, Nibbles* high) noexcept {
      for (std::size_t i = 0; i < kQuad; ++i) {
        low->four[i] = p[i] & 15;
        high->four[i] = p[i] >> 4;
      }
    }
    static Q8::Sum set(std::int32_t x) noexcept { return x; }
    static F to_floats(Q8::Sum sum) noexcept { return static_cast<float>(sum); }
    static Q8::Sum plus(Q8::Sum a, Q8::Sum b) noexcept { return a + b; }
    static Q8::Sum add(Q8::Sum sum, const Nibbles& n, const std::int8_t* x) noexcept {
      for (std::size_t i = 0; i < kQuad; ++i) sum += n.four[i] * x[i];
      return sum;
    }
  };

  static float fold(const F* parts) noexcept {
    return fold_with(parts, [](float a, float b) { return a + b; });
  }
  static float fold_max(const F* parts) noexcept {
    return fold_with(parts, [](float a, float b) { return max(a, b); });
  }

 private:
  static float from_bits(std::uint32_t bits) noexcept { return __builtin_bit_cast(float, bits); }
  static std::uint32_t to_bits(float x) noexcept { return __builtin_bit_cast(std::uint32_t, x); }

  template <class Op>
  static float fold_with(const F* parts, Op op) noexcept {
    float lanes[kLanes];
    std::memcpy(lanes, parts, sizeof(lanes));
    for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
      for (std::size_t i = 0; i < half; ++i) lanes[i] = op(lanes[i], lanes[i + half]);
    }
    return lanes[0];
  }
};

constexpr AttentionKernels kTable = make_attention_kernels<Scalar>(Isa::kScalar, "scalar");

}  // namespace

const AttentionKernels& attention_kernels_scalar() noexcept { return kTable; }

}  // namespace terrace
