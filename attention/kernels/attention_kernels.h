// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/kernels/kv_page.h"
#include "engine/isa.h"

// Kernels of attention: plain functions over pointers, one table per instruction set, chosen once when a
// model is built.
//
// All tables give the same bits. Sums run either along one chain of fused multiply-adds, or over kLanes
// partial sums that are folded in one fixed tree, whatever the width of the registers; exp is one polynomial.
// The scalar table is the specification (it calls the C library's fmaf and is slow where the CPU has none).

namespace terrace {

/// Slots [begin, end) of a page that a query row sees.
struct PageSpan {
  std::uint16_t begin;
  std::uint16_t end;
};

/// Partial softmax of one row over some slots: the maximum, the sum of exp(score - maximum) and the sum of
/// values with those weights.
///   [0] maximum   [1] sum   [kStateHeader ..] weighted values, padded_width(d_v) floats
inline constexpr std::size_t kStateHeader = 16;
constexpr std::size_t state_floats(std::size_t d_v) noexcept { return kStateHeader + padded_width(d_v); }

/// A query row for q8 keys: q[d] is about scale * (kHighUnit * high[d] + low[d]). Fourteen bits, so that only
/// the keys lose precision against f32. For q4 keys q[d] is about scale * group_scales[d / kQ4Group] *
/// high[d]: steps a sixteenth of the keys'.
struct QuantizedQuery {
  std::int8_t* high;  ///< [padded_width(d_k)], zeros behind d_k; -127 .. 127
  std::int8_t* low;   ///< the same; -64 .. 64
  std::int32_t high_sum;
  std::int32_t low_sum;
  float scale;
  float* group_scales;       ///< [q4_groups(d_k)]
  std::int32_t* group_sums;  ///< [q4_groups(d_k)] of high
};
inline constexpr int kHighUnit = 128;

/// Attention of several query rows over one page of one KV head.
struct PageTask {
  const void* keys = nullptr;  ///< layout of kv_page.h; the element type belongs to the kernel
  const void* values = nullptr;
  std::size_t d_k = 0;
  std::size_t d_v = 0;
  std::size_t n_slots = kPageSlots;  ///< that hold keys; a group of kLanes that is not full is open
  const float* const* q = nullptr;   ///< n_rows pointers to d_k floats
  const QuantizedQuery* quantized_q = nullptr;  ///< q8, q4: [n_rows], instead of q
  const float* key_scale = nullptr;             ///< q8: [kPageSlots]
  const float* value_scale = nullptr;           ///< q8: [kPageSlots]
  const void* next_page = nullptr;  ///< what will be read after this page, to be prefetched; may be null
  const PageSpan* spans = nullptr;  ///< [n_rows]; begin < end
  std::size_t n_rows = 0;
  float scale = 1;  ///< multiplies every score

  /// Positions for additive penalties; null: none. score -= future_penalty where key > query, self_penalty
  /// where equal, pad_penalty where the key's position is negative.
  const float* query_position = nullptr;  ///< [n_rows]
  const float* key_position = nullptr;    ///< [kPageSlots]
  float future_penalty = 0;
  float self_penalty = 0;
  float pad_penalty = 0;

  float* states = nullptr;  ///< n_rows states, state_floats(d_v) apart; overwritten
};

struct AttentionKernels {
  Isa isa;
  const char* name;

  /// Softmax state of every row over its span of the page.
  void (*attend_page_f32)(const PageTask& task) noexcept;
  void (*attend_page_bf16)(const PageTask& task) noexcept;
  /// Products of bytes are added up as integers:
  ///   score = float(sum of q * key) * key_scale * (q.scale * scale)
  ///   value = float(sum of w * value) * unit,   w = round(weight * value_scale / unit), 14 bits,
  /// where unit is the largest weight * value_scale of the row in the page over 16383.
  void (*attend_page_q8)(const PageTask& task) noexcept;
  /// The same by groups g of kQ4Group channels, which have scales of their own:
  ///   score = chain over g of float(sum of q * key) * (key_scale[g] * q.group_scales[g]), times scale
  ///   value = float(sum of w * value) * unit[g],   w = round(weight * value_scale[g] / unit[g]), 8 bits,
  /// where unit[g] is the largest |weight * value_scale[g]| of the row in the page over 127.
  void (*attend_page_q4)(const PageTask& task) noexcept;
  /// Fills in `to`, whose pointers are set, for q8 keys: scale = max |q| / 16319, rounded to nearest even.
  /// NaN counts as 0.
  void (*quantize_query)(const float* q, std::size_t d_k, QuantizedQuery* to) noexcept;
  /// Likewise for q4 keys: scale = 1, group_scales = max |q| / 127 of each group.
  void (*quantize_query_q4)(const float* q, std::size_t d_k, QuantizedQuery* to) noexcept;
  /// A row of d channels as a q4 cache keeps it: per group of kQ4Group, scale = the value of largest |x| over
  /// -8, as bf16, and steps = min(7, round(x / scale)) + 8, to nearest even; [whole groups], channels behind
  /// d are 0. NaN counts as 0; so does a group below 1e-36.
  void (*quantize_q4)(const float* x, std::size_t d, std::uint8_t* steps, std::uint16_t* scales) noexcept;

  /// state = the state of both sets of slots together; `next` comes after `state` in slot order.
  void (*merge)(float* state, const float* next, std::size_t d_v) noexcept;
  /// y [d_v] = weighted values / sum.
  void (*finish)(const float* state, std::size_t d_v, float* y) noexcept;

  /// x[i] = exp(x[i] - maximum of x); returns the sum, folded over kLanes partial sums.
  float (*softmax_weights)(float* x, std::size_t n) noexcept;
  /// y[i] = exp(x[i]): at most 1.1 ulp off for -87 <= x <= 88, 0 below -87.
  void (*exp)(const float* x, std::size_t n, float* y) noexcept;

  /// y[i] = scale * <q, rows[i]> over d elements, which are turned into floats: kLanes chains folded in one
  /// tree.
  void (*dot_rows)(const float* q, const float* const* rows, std::size_t n, std::size_t d, float scale,
                   float* y) noexcept;
  void (*dot_rows_bf16)(const float* q, const std::uint16_t* const* rows, std::size_t n, std::size_t d,
                        float scale, float* y) noexcept;
  void (*dot_rows_i8)(const float* q, const std::int8_t* const* rows, std::size_t n, std::size_t d,
                      float scale, float* y) noexcept;
  /// y[j] = scale * sum over i, in order, of w[i] * rows[i][j], j < d; likewise.
  void (*weighted_sum)(const float* w, const float* const* rows, std::size_t n, std::size_t d, float scale,
                       float* y) noexcept;
  void (*weighted_sum_bf16)(const float* w, const std::uint16_t* const* rows, std::size_t n, std::size_t d,
                            float scale, float* y) noexcept;
  void (*weighted_sum_i8)(const float* w, const std::int8_t* const* rows, std::size_t n, std::size_t d,
                          float scale, float* y) noexcept;

  /// Linear attention over `sums` [m, d], d a multiple of kLanes, in one pass:
  ///   sums[i] += key[i] * value                           unless key is null
  ///   y = sum over i, in order, of query[i] * sums[i]     unless query is null
  void (*linear_attention)(const float* key, const float* value, const float* query, std::size_t m,
                           std::size_t d, float* sums, float* y) noexcept;
};

/// The table for an available ISA (kScalar always is).
/// Throws Error{kUnsupported} otherwise.
const AttentionKernels& attention_kernels(Isa isa);

}  // namespace terrace
