// SPDX-License-Identifier: Apache-2.0
// The specification: every other table must return these results, bit for bit unless a test states a bound.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "engine/ceil_div.h"
#include "engine/dtype.h"
#include "engine/kernels/dense_tables.h"
#include "engine/tensor.h"

namespace terrace {
namespace {

/// The one reduction order of all f32 sums: element i is added to lane i mod 16, in order of i; the last,
/// partial group of 16 is filled up with zeros; then lanes are folded in halves, 16 -> 8 -> 4 -> 2 -> 1.
/// Sixteen lanes are one AVX-512 register, two AVX2 ones, four NEON ones.
class Lanes {
 public:
  static constexpr std::size_t kCount = 16;

  void add_product(std::size_t lane, float a, float b) noexcept { lane_[lane] = std::fma(a, b, lane_[lane]); }
  float fold() noexcept {
    for (std::size_t half = kCount / 2; half > 0; half /= 2) {
      for (std::size_t l = 0; l < half; ++l) lane_[l] += lane_[l + half];
    }
    return lane_[0];
  }

 private:
  float lane_[kCount] = {};
};

/// sum over i of a(i) * b(i), i < n.
template <class A, class B>
float sum_of_products(std::size_t n, A a, B b) noexcept {
  Lanes lanes;
  for (std::size_t i = 0; i < n; ++i) lanes.add_product(i % Lanes::kCount, a(i), b(i));
  for (std::size_t i = n; i % Lanes::kCount != 0; ++i) lanes.add_product(i % Lanes::kCount, 0.0F, 0.0F);
  return lanes.fold();
}

/// Value 0..15 of column c in a q4 row.
int nibble(const std::uint8_t* row, std::size_t c) noexcept {
  const std::uint8_t byte = row[c / kQ4Columns * (kQ4Columns / 2) + c % kQ4Group];
  return c / kQ4Group % 2 == 0 ? byte & 15 : byte >> 4;
}

void dot_f32(const float* w, std::size_t row_stride, std::size_t n_rows, const float* const* x,
             std::size_t n_tokens, std::size_t d, float* y, std::size_t y_stride) noexcept {
  for (std::size_t r = 0; r < n_rows; ++r) {
    const float* row = w + r * row_stride;
    for (std::size_t t = 0; t < n_tokens; ++t) {
      y[t * y_stride + r] = sum_of_products(
          d, [&](std::size_t i) { return row[i]; }, [&](std::size_t i) { return x[t][i]; });
    }
  }
}

void dot_bf16(const std::uint16_t* w, std::size_t row_stride, std::size_t n_rows, const float* const* x,
              std::size_t n_tokens, std::size_t d, float* y, std::size_t y_stride) noexcept {
  for (std::size_t r = 0; r < n_rows; ++r) {
    const std::uint16_t* row = w + r * row_stride;
    for (std::size_t t = 0; t < n_tokens; ++t) {
      y[t * y_stride + r] = sum_of_products(
          d, [&](std::size_t i) { return bf16_to_f32(row[i]); }, [&](std::size_t i) { return x[t][i]; });
    }
  }
}

void dot_gathered_f32(const float* const* rows, std::size_t n, const float* x, std::size_t d,
                      float* y) noexcept {
  for (std::size_t k = 0; k < n; ++k) dot_f32(rows[k], d, 1, &x, 1, d, y + k, 1);
}

void dot_gathered_bf16(const std::uint16_t* const* rows, std::size_t n, const float* x, std::size_t d,
                       float* y) noexcept {
  for (std::size_t k = 0; k < n; ++k) dot_bf16(rows[k], d, 1, &x, 1, d, y + k, 1);
}

void dot_q8(const std::int8_t* w, std::size_t row_stride, const float* w_scale, std::size_t n_rows,
            const QuantizedRow* x, std::size_t n_tokens, std::size_t d, float* y,
            std::size_t y_stride) noexcept {
  for (std::size_t r = 0; r < n_rows; ++r) {
    const std::int8_t* row = w + r * row_stride;
    for (std::size_t t = 0; t < n_tokens; ++t) {
      std::int32_t sum = 0;
      for (std::size_t i = 0; i < d; ++i) sum += std::int32_t{row[i]} * x[t].q[i];
      y[t * y_stride + r] = static_cast<float>(sum) * (w_scale[r] * x[t].scale);
    }
  }
}

void dot_gathered_q8(const std::int8_t* const* rows, const float* w_scale, std::size_t n,
                     const QuantizedRow& x, std::size_t d, float* y) noexcept {
  for (std::size_t k = 0; k < n; ++k) dot_q8(rows[k], d, w_scale + k, 1, &x, 1, d, y + k, 1);
}

// The products of a group are summed as integers, then one fused multiply-add with the group's scale adds
// them to sum g mod 4; the last, partial round of four groups is filled up with zeros. At the end of every
// span the four sums are folded, 4 -> 2 -> 1, and added to the total.
void dot_q4(const std::uint8_t* w, std::size_t row_stride, const std::uint16_t* w_scale, std::size_t n_rows,
            const QuantizedRow* x, std::size_t n_tokens, std::size_t d, float* y,
            std::size_t y_stride) noexcept {
  constexpr std::size_t kRound = kQ4Sums * kQ4Group;
  for (std::size_t r = 0; r < n_rows; ++r) {
    const std::uint8_t* row = w + r * row_stride / 2;
    const std::uint16_t* scale = w_scale + r * row_stride / kQ4Group;
    for (std::size_t t = 0; t < n_tokens; ++t) {
      float total = 0.0F;
      for (std::size_t begin = 0; begin < d; begin += kQ4Span) {
        const std::size_t end = std::min(begin + kQ4Span, d);
        float sum[kQ4Sums] = {};
        for (std::size_t c = begin; c < (end + kRound - 1) / kRound * kRound; c += kQ4Group) {
          std::int32_t products = 0;
          for (std::size_t i = c; i < std::min(c + kQ4Group, end); ++i) {
            products += (nibble(row, i) - 8) * x[t].q[i];
          }
          float& to = sum[c / kQ4Group % kQ4Sums];
          to = std::fma(static_cast<float>(products), c < end ? bf16_to_f32(scale[c / kQ4Group]) : 0.0F, to);
        }
        total += (sum[0] + sum[2]) + (sum[1] + sum[3]);
      }
      y[t * y_stride + r] = total * x[t].scale;
    }
  }
}

void dot_gathered_q4(const std::uint8_t* const* rows, const std::uint16_t* const* w_scale, std::size_t n,
                     const QuantizedRow& x, std::size_t d, float* y) noexcept {
  for (std::size_t k = 0; k < n; ++k) dot_q4(rows[k], d, w_scale[k], 1, &x, 1, d, y + k, 1);
}

void axpy_f32(const float* a, const float* const* rows, std::size_t n, float* y, std::size_t d) noexcept {
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t i = 0; i < d; ++i) y[i] = std::fma(a[k], rows[k][i], y[i]);
  }
}

void axpy_bf16(const float* a, const std::uint16_t* const* rows, std::size_t n, float* y,
               std::size_t d) noexcept {
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t i = 0; i < d; ++i) y[i] = std::fma(a[k], bf16_to_f32(rows[k][i]), y[i]);
  }
}

void axpy_q8(const float* a, const std::int8_t* const* rows, std::size_t n, float* y,
             std::size_t d) noexcept {
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t i = 0; i < d; ++i) y[i] = std::fma(a[k], static_cast<float>(rows[k][i]), y[i]);
  }
}

void axpy_q4(const float* a, const std::uint8_t* const* rows, const std::uint16_t* const* scales,
             std::size_t n, float* y, std::size_t d) noexcept {
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t i = 0; i < d; ++i) {
      const float scaled = a[k] * bf16_to_f32(scales[k][i / kQ4Group]);
      y[i] = std::fma(scaled, static_cast<float>(nibble(rows[k], i) - 8), y[i]);
    }
  }
}

float largest_magnitude(const float* x, std::size_t d) noexcept {
  float max = 0.0F;
  for (std::size_t i = 0; i < d; ++i) max = std::fabs(x[i]) > max ? std::fabs(x[i]) : max;  // false for NaN
  return max;
}

void quantize_runs(const float* x, std::size_t n_runs, std::size_t run, float scale, std::int8_t* q,
                   std::size_t stride, std::int32_t* sums) noexcept {
  constexpr float kLargest = 127.0F;
  const float inverse = 1.0F / scale;
  for (std::size_t r = 0; r < n_runs; ++r) {
    for (std::size_t i = 0; i < run; ++i) {
      const float scaled = x[r * run + i] * inverse;
      // NaN: x is NaN, or 0 * inf. Infinite: 1 / scale is infinite. Beyond 127: the scale of a denormal row
      // is coarse.
      const float clamped = std::fabs(scaled) < 1e30F ? std::clamp(scaled, -kLargest, kLargest) : 0.0F;
      const auto step = scale > 0.0F ? static_cast<std::int8_t>(std::nearbyint(clamped)) : std::int8_t{0};
      q[r * stride + i] = step;
      sums[r] += step;
    }
  }
}

void quantize_i16(const float* x, std::size_t d, float scale, std::int16_t* s) noexcept {
  const float inverse = 1.0F / scale;
  for (std::size_t i = 0; i < d; ++i) {
    const float scaled = x[i] * inverse;
    s[i] = std::fabs(scaled) < 32768.0F ? static_cast<std::int16_t>(std::nearbyint(scaled)) : std::int16_t{0};
  }
  std::fill(s + d, s + ceil_div(d, kPackColumns) * kPackColumns, std::int16_t{0});
}

std::uint32_t gate_q8(const std::int16_t* s, const std::int8_t* w, std::size_t d, std::int8_t* q,
                      std::int32_t* sum) noexcept {
  std::int32_t products[kMostProduct];
  std::int32_t largest = 0;
  for (std::size_t i = 0; i < d; ++i) {
    products[i] = (s[i] * w[i] + (1 << 6)) >> 7;
    largest = std::max(largest, std::abs(products[i]));
  }
  const auto found = static_cast<std::uint32_t>(largest);
  if (found < kLeastGated) return found;
  *sum = 0;
  for (std::size_t i = 0; i < d; ++i) {
    q[i] = static_cast<std::int8_t>((products[i] * requantize_factor(found) + (1 << 14)) >> 15);
    *sum += q[i];
  }
  std::fill(q + d, q + ceil_div(d, kPackColumns) * kPackColumns, std::int8_t{0});
  return found;
}

void multiply_bf16(const float* x, const std::uint16_t* w, float* y, std::size_t d) noexcept {
  for (std::size_t i = 0; i < d; ++i) y[i] = x[i] * bf16_to_f32(w[i]);
}

float multiply_q8(const float* x, const std::int8_t* w, float scale, float* y, std::size_t d) noexcept {
  for (std::size_t i = 0; i < d; ++i) y[i] = x[i] * (scale * static_cast<float>(w[i]));
  return largest_magnitude(y, d);
}

void widen_bf16(const std::uint16_t* w, std::size_t d, float* y) noexcept {
  for (std::size_t i = 0; i < d; ++i) y[i] = bf16_to_f32(w[i]);
}

void norm(const float* x, std::size_t d, const float* scale, const float* bias, bool center, float eps,
          float* y) noexcept {
  const auto n = static_cast<float>(d);
  const auto one = [](std::size_t) { return 1.0F; };
  const float mean = center ? sum_of_products(
                                  d, [&](std::size_t i) { return x[i]; }, one) /
                                  n
                            : 0.0F;
  const auto centred = [&](std::size_t i) { return x[i] - mean; };
  const float inverse = 1.0F / std::sqrt(sum_of_products(d, centred, centred) / n + eps);
  for (std::size_t i = 0; i < d; ++i) {
    const float normed = centred(i) * inverse;
    y[i] = center && bias ? std::fma(normed, scale[i], bias[i]) : normed * scale[i];
  }
}

void relu(float* x, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) x[i] = x[i] < 0.0F ? 0.0F : x[i];  // NaN stays NaN
}

void gelu(float* x, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) x[i] = 0.5F * x[i] * (1.0F + std::erf(x[i] * 0.70710678F));
}

void fast_gelu(float* x, std::size_t n) noexcept {
  constexpr float kSqrt2OverPi = 0.79788456F;
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = 0.5F * x[i] * (1.0F + std::tanh(kSqrt2OverPi * (x[i] + 0.044715F * x[i] * x[i] * x[i])));
  }
}

void silu(float* x, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) x[i] = x[i] / (1.0F + std::exp(-x[i]));
}

void sigmoid(float* x, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) x[i] = 1.0F / (1.0F + std::exp(-x[i]));
}

void multiply(float* x, const float* y, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) x[i] *= y[i];
}

void add(float* x, const float* y, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) x[i] += y[i];
}

void multiply_to(const float* a, const float* b, float* y, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) y[i] = a[i] * b[i];
}

std::uint64_t read(const void* data, std::size_t n) noexcept {
  std::uint64_t result = 0;
  for (std::size_t i = 0; i + sizeof result <= n; i += sizeof result) {
    std::uint64_t word;
    std::memcpy(&word, static_cast<const char*>(data) + i, sizeof word);
    result ^= word;
  }
  return result;
}

constexpr DenseKernels kTable = {
    .isa = Isa::kScalar,
    .name = "scalar",
    .dot_f32 = dot_f32,
    .dot_bf16 = dot_bf16,
    .dot_gathered_f32 = dot_gathered_f32,
    .dot_gathered_bf16 = dot_gathered_bf16,
    .dot_gathered_q8 = dot_gathered_q8,
    .dot_gathered_q4 = dot_gathered_q4,
    .dot_q8 = dot_q8,
    .dot_q4 = dot_q4,
    .axpy_f32 = axpy_f32,
    .axpy_bf16 = axpy_bf16,
    .axpy_q8 = axpy_q8,
    .axpy_q4 = axpy_q4,
    .largest_magnitude = largest_magnitude,
    .quantize_runs = quantize_runs,
    .quantize_i16 = quantize_i16,
    .gate_q8 = gate_q8,
    .multiply_bf16 = multiply_bf16,
    .multiply_q8 = multiply_q8,
    .widen_bf16 = widen_bf16,
    .norm = norm,
    .relu = relu,
    .gelu = gelu,
    .fast_gelu = fast_gelu,
    .silu = silu,
    .sigmoid = sigmoid,
    .multiply = multiply,
    .add = add,
    .multiply_to = multiply_to,
    .read = read,
};

}  // namespace

const DenseKernels& dense_kernels_scalar() noexcept { return kTable; }

}  // namespace terrace
