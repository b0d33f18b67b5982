// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/isa.h"
#include "engine/tensor.h"

// Kernels of linear maps: plain functions over pointers, one table per instruction set, chosen once when a
// model is built. Every dot product has ONE reduction order, the same in every table (dense_scalar.cpp states
// it): it depends on d only, never on how many rows or tokens a call handles, so prefill, decode, any thread
// count, any nested width and any instruction set agree bit for bit. Only gelu, fast_gelu, silu and sigmoid
// differ between kScalar, which calls the C library, and the others, which agree among themselves; and tables
// with dot_split_bf16 have a second order of their own, for layers that ask for it.

namespace terrace {

/// One activation row, quantised: x[i] ~ scale * q[i], q in -127..127, zero-padded to a multiple of 64.
struct QuantizedRow {
  const std::int8_t* q;
  float scale;
  std::int32_t sum;  ///< sum of q, for kernels that offset the other operand (VNNI, q4)
};

/// One activation row in 16 bits, for gate_q8(): x[i] ~ scale * s[i], s in -32767..32767, in the order of the
/// table that made it. Scale 0: not to be used.
struct Int16Row {
  const std::int16_t* s = nullptr;
  float scale = 0.0F;
};
/// Longest row of gate_q8(), and of anything else that makes products on the stack.
inline constexpr std::size_t kMostProduct = 1024;
/// A gated row is requantised only if its largest product has so many steps, eight for each of int8's: then
/// what 16 bits lose is at most an eighth of a step of int8.
inline constexpr std::uint32_t kLeastGated = 1024;
/// By what gate_q8() multiplies products of at most `largest` >= kLeastGated, in units of 2^-15.
constexpr std::int32_t requantize_factor(std::uint32_t largest) noexcept {
  return static_cast<std::int32_t>((127U << 15) / largest);
}

/// Quantised activation rows that lie side by side in a pack.
inline constexpr std::size_t kPackRows = 16;
/// Columns of a step through a pack; zeros follow the last column of a row.
inline constexpr std::size_t kPackColumns = 64;
/// Rows are packed only if their length is a multiple of this.
inline constexpr std::size_t kPackMultiple = 4;
/// Bytes of one pack of rows of d columns.
constexpr std::size_t pack_bytes(std::size_t d) noexcept {
  return (d + kPackColumns - 1) / kPackColumns * kPackColumns * kPackRows;
}
/// The same for q4 weights, with a sum per row and group.
constexpr std::size_t q4_pack_bytes(std::size_t d) noexcept {
  return pack_bytes(d) + d / kQ4Group * kPackRows * sizeof(std::int32_t);
}

/// Activation rows that lie side by side in a pack of split rows, each as its high and its low part.
inline constexpr std::size_t kSplitRows = 8;
/// Columns of a step through such a pack; zeros follow the last column of a row.
inline constexpr std::size_t kSplitColumns = 32;
/// Bytes of one pack of rows of d columns. A row `alone`, not one of several, has a pack of its own kind.
constexpr std::size_t split_bytes(std::size_t d, bool alone) noexcept {
  const std::size_t bytes_per_column = (alone ? 1 : kSplitRows) * 2 * sizeof(std::uint16_t);
  return (d + kSplitColumns - 1) / kSplitColumns * kSplitColumns * bytes_per_column;
}

struct DenseKernels {
  Isa isa;
  const char* name;

  // Dot products of n_rows weight rows (row_stride elements apart) with n_tokens activation rows:
  //   y[t * y_stride + r] = <w_r, x_t> (times the scales)
  // The first d elements of each row count. x[t] may point anywhere (overlapping windows are allowed).
  void (*dot_f32)(const float* w, std::size_t row_stride, std::size_t n_rows, const float* const* x,
                  std::size_t n_tokens, std::size_t d, float* y, std::size_t y_stride) noexcept;
  void (*dot_bf16)(const std::uint16_t* w, std::size_t row_stride, std::size_t n_rows, const float* const* x,
                   std::size_t n_tokens, std::size_t d, float* y, std::size_t y_stride) noexcept;
  // The same for n weight rows that lie anywhere and one activation row: y[k] = <rows[k], x>. Bits of
  // dot_f32, dot_bf16, dot_q8, dot_q4.
  void (*dot_gathered_f32)(const float* const* rows, std::size_t n, const float* x, std::size_t d,
                           float* y) noexcept;
  void (*dot_gathered_bf16)(const std::uint16_t* const* rows, std::size_t n, const float* x, std::size_t d,
                            float* y) noexcept;
  /// w_scale[k] is that of rows[k].
  void (*dot_gathered_q8)(const std::int8_t* const* rows, const float* w_scale, std::size_t n,
                          const QuantizedRow& x, std::size_t d, float* y) noexcept;
  /// w_scale[k] points at the scales of rows[k].
  void (*dot_gathered_q4)(const std::uint8_t* const* rows, const std::uint16_t* const* w_scale, std::size_t n,
                          const QuantizedRow& x, std::size_t d, float* y) noexcept;
  /// Integer part exact: the same bits on every ISA. y = float(sum) * (w_scale[r] * x[t].scale).
  void (*dot_q8)(const std::int8_t* w, std::size_t row_stride, const float* w_scale, std::size_t n_rows,
                 const QuantizedRow* x, std::size_t n_tokens, std::size_t d, float* y,
                 std::size_t y_stride) noexcept;
  /// Sums of a group's products are exact integers, scaled and added in f32 in the order of dense_scalar.cpp.
  /// row_stride and d are multiples of 64.
  void (*dot_q4)(const std::uint8_t* w, std::size_t row_stride, const std::uint16_t* w_scale,
                 std::size_t n_rows, const QuantizedRow* x, std::size_t n_tokens, std::size_t d, float* y,
                 std::size_t y_stride) noexcept;

  // The products of dot_q8 and dot_q4, bit for bit, for many activation rows, which are packed first: how a
  // pack is laid out is the table's own business. Null in tables that gain nothing by it.
  /// One pack of n <= kPackRows rows. d is a multiple of kPackMultiple; columns of x from d on are ignored.
  void (*pack_q8)(const QuantizedRow* x, std::size_t n, std::size_t d, std::byte* pack) noexcept = nullptr;
  /// n_rows is a multiple of kPackRows; ceil(n_tokens / kPackRows) packs follow each other.
  void (*dot_packed_q8)(const std::int8_t* w, std::size_t row_stride, const float* w_scale,
                        std::size_t n_rows, const std::byte* packs, const QuantizedRow* x,
                        std::size_t n_tokens, std::size_t d, float* y,
                        std::size_t y_stride) noexcept = nullptr;
  /// The same for q4 weights: other packs, d a multiple of kQ4Columns.
  void (*pack_q4)(const QuantizedRow* x, std::size_t n, std::size_t d, std::byte* pack) noexcept = nullptr;
  void (*dot_packed_q4)(const std::uint8_t* w, std::size_t row_stride, const std::uint16_t* w_scale,
                        std::size_t n_rows, const std::byte* packs, const QuantizedRow* x,
                        std::size_t n_tokens, std::size_t d, float* y,
                        std::size_t y_stride) noexcept = nullptr;

  // Products of bf16 weights with f32 activation rows split into two bf16 numbers,
  //   high = bf16(x), low = bf16(x - high)   |x - high - low| <= 2^-17 |x|; low of an infinite x is 0
  // where the CPU multiplies tiles of them: a tenth of dot_bf16's time, but not its bits. For s = high, low,
  // in steps of 32 columns, the last one padded with zeros:
  //   even, odd = chains of fused multiply-adds over the columns of the step;   sum_s += even + odd
  // and then y = sum_high + sum_low. Denormals count as 0. The order depends on d only, so a layer that takes
  // these products for every number of tokens has equal prefill and decode. Null where there are no tiles.
  /// One pack of n <= kSplitRows rows, or of a row alone.
  void (*pack_split)(const float* const* x, std::size_t n, std::size_t d, bool alone,
                     std::byte* pack) noexcept = nullptr;
  /// ceil(n_tokens / kSplitRows) packs follow each other; a single token is alone.
  void (*dot_split_bf16)(const std::uint16_t* w, std::size_t row_stride, std::size_t n_rows,
                         const std::byte* packs, std::size_t n_tokens, std::size_t d, float* y,
                         std::size_t y_stride) noexcept = nullptr;

  // y[i] += sum over k, in order, of a[k] * row_k[i], for i in [0, d). `rows[k]` points at element 0 of the
  // range. Each element is one chain of fused multiply-adds over k: the same bits however columns are split.
  void (*axpy_f32)(const float* a, const float* const* rows, std::size_t n, float* y, std::size_t d) noexcept;
  void (*axpy_bf16)(const float* a, const std::uint16_t* const* rows, std::size_t n, float* y,
                    std::size_t d) noexcept;
  /// a[k] already holds the row's scale.
  void (*axpy_q8)(const float* a, const std::int8_t* const* rows, std::size_t n, float* y,
                  std::size_t d) noexcept;
  /// scales[k] points at the scales of the row's groups; d is a multiple of 64.
  void (*axpy_q4)(const float* a, const std::uint8_t* const* rows, const std::uint16_t* const* scales,
                  std::size_t n, float* y, std::size_t d) noexcept;

  // Quantising a row, in two steps (quantize_row()).
  /// max|x[i]|; NaN counts as 0.
  float (*largest_magnitude)(const float* x, std::size_t d) noexcept;
  /// q = round-to-nearest-even(x * (1 / scale)); 0 for NaN, and everywhere if scale is not positive. Run i of
  /// `run` values goes to q + i * stride, and sums[i] grows by its sum.
  void (*quantize_runs)(const float* x, std::size_t n_runs, std::size_t run, float scale, std::int8_t* q,
                        std::size_t stride, std::int32_t* sums) noexcept;

  // A row times several rows of int8 weights, each product quantised (gate_row()). In 16 bits that takes
  // fewer instructions than multiply_q8() and quantize_runs().
  /// s = round-to-nearest-even(x * (1 / scale)); 0 for NaN, and from d on up to a multiple of 64.
  void (*quantize_i16)(const float* x, std::size_t d, float scale, std::int16_t* s) noexcept;
  /// p[i] = (s[i] * w[i] + 2^6) >> 7. Returns L = max|p[i]|, and if that is at least kLeastGated,
  ///   q[i] = (p[i] * requantize_factor(L) + 2^14) >> 15,   sum = the sum of q,
  /// and zeros up to a multiple of 64. Integers only: the same bits in every table. d is at most
  /// kMostProduct.
  std::uint32_t (*gate_q8)(const std::int16_t* s, const std::int8_t* w, std::size_t d, std::int8_t* q,
                           std::int32_t* sum) noexcept;

  // y[i] = x[i] * w[i] with a row of weights.
  void (*multiply_bf16)(const float* x, const std::uint16_t* w, float* y, std::size_t d) noexcept;
  /// y[i] = x[i] * (scale * w[i]). Returns largest_magnitude(y): a layer in q8 quantises what it multiplies.
  float (*multiply_q8)(const float* x, const std::int8_t* w, float scale, float* y, std::size_t d) noexcept;

  /// Widens one weight row to f32 (embedding lookup): y[i] = w[i].
  void (*widen_bf16)(const std::uint16_t* w, std::size_t d, float* y) noexcept;

  /// y = (x - mean) / sqrt(var + eps) * scale + bias (layer norm; bias may be null),
  /// or with center == false y = x / sqrt(mean(x^2) + eps) * scale (bias ignored, as in Trax and RMSNorm).
  void (*norm)(const float* x, std::size_t d, const float* scale, const float* bias, bool center, float eps,
               float* y) noexcept;

  // Elementwise, in place.
  void (*relu)(float* x, std::size_t n) noexcept;
  void (*gelu)(float* x, std::size_t n) noexcept;       ///< x/2 (1 + erf(x / sqrt 2))
  void (*fast_gelu)(float* x, std::size_t n) noexcept;  ///< tanh form
  void (*silu)(float* x, std::size_t n) noexcept;       ///< x * sigmoid(x)
  void (*sigmoid)(float* x, std::size_t n) noexcept;
  void (*multiply)(float* x, const float* y, std::size_t n) noexcept;                     ///< x *= y
  void (*add)(float* x, const float* y, std::size_t n) noexcept;                          ///< x += y
  void (*multiply_to)(const float* a, const float* b, float* y, std::size_t n) noexcept;  ///< y = a * b

  /// Reads n bytes (a multiple of 64) and returns something that depends on them: the bandwidth probe.
  std::uint64_t (*read)(const void* data, std::size_t n) noexcept;
};

/// Scale of a quantised row whose largest magnitude is `largest`.
constexpr float scale_of(float largest) noexcept { return largest / 127.0F; }

/// A row of d floats, the largest magnitude among them known, quantised into q and padded with zeros to a
/// multiple of 64; scale 0 for an all-zero row.
inline QuantizedRow quantize_row(const DenseKernels& kernels, const float* x, std::size_t d, float largest,
                                 std::int8_t* q) noexcept {
  constexpr std::size_t kMultiple = 64;
  QuantizedRow row{q, scale_of(largest), 0};
  kernels.quantize_runs(x, 1, d, row.scale, q, d, &row.sum);
  if (d % kMultiple != 0) std::memset(q + d, 0, kMultiple - d % kMultiple);
  return row;
}
inline QuantizedRow quantize_row(const DenseKernels& kernels, const float* x, std::size_t d,
                                 std::int8_t* q) noexcept {
  return quantize_row(kernels, x, d, kernels.largest_magnitude(x, d), q);
}

/// A row of d floats in 16 bits; `s` has room for a multiple of 64. Not for rows whose scale would be a
/// denormal or infinite.
inline Int16Row int16_row(const DenseKernels& kernels, const float* x, std::size_t d,
                          std::int16_t* s) noexcept {
  const float largest = kernels.largest_magnitude(x, d);
  if (!(largest > 1e-30F && largest < 1e30F)) return {s, 0.0F};
  const float scale = largest / 32767.0F;
  kernels.quantize_i16(x, d, scale, s);
  return {s, scale};
}

/// row ~ x times a row of int8 weights, element by element, quantised into q, which has room for a multiple
/// of 64. False if 16 bits are too few for it: then it has to be made from floats.
inline bool gate_row(const DenseKernels& kernels, const Int16Row& x, const std::int8_t* w, float w_scale,
                     std::size_t d, std::int8_t* q, QuantizedRow& row) noexcept {
  std::int32_t sum = 0;
  const std::uint32_t largest = kernels.gate_q8(x.s, w, d, q, &sum);
  if (largest < kLeastGated) return false;
  // s * w = 2^7 p, and p = q * 2^15 / factor.
  const float step = static_cast<float>(1U << 22) / static_cast<float>(requantize_factor(largest));
  row = {q, x.scale * w_scale * step, sum};
  return true;
}

/// The table for an available ISA (kScalar always is). Throws Error{kUnsupported} otherwise.
const DenseKernels& dense_kernels(Isa isa);

}  // namespace terrace
