// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "engine/kernels/dense_axpy.h"
#include "engine/kernels/dense_elementwise.h"
#include "engine/kernels/dense_float_dot.h"
#include "engine/kernels/dense_gate.h"
#include "engine/kernels/dense_q4_dot.h"
#include "engine/kernels/dense_q8_dot.h"
#include "engine/kernels/dense_rows.h"
#include "engine/kernels/dense_tables.h"

namespace terrace {
namespace {

/// The table of one instruction set `S`; the headers above say what `S` must have.
template <class S>
constexpr DenseKernels make_dense_kernels(Isa isa, const char* name) noexcept {
  return {
      .isa = isa,
      .name = name,
      .dot_f32 = dot<S, float>,
      .dot_bf16 = dot<S, std::uint16_t>,
      .dot_gathered_f32 = dot_gathered<S, float>,
      .dot_gathered_bf16 = dot_gathered<S, std::uint16_t>,
      .dot_gathered_q8 = dot_gathered_q8<S>,
      .dot_gathered_q4 = dot_gathered_q4<S>,
      .dot_q8 = dot_q8<S>,
      .dot_q4 = dot_q4<S>,
      .axpy_f32 = axpy<S, float>,
      .axpy_bf16 = axpy<S, std::uint16_t>,
      .axpy_q8 = axpy<S, std::int8_t>,
      .axpy_q4 = axpy_q4<S>,
      .largest_magnitude = largest_magnitude<S>,
      .quantize_runs = quantize_runs<S>,
      .quantize_i16 = quantize_i16<S>,
      .gate_q8 = gate_q8<S>,
      .multiply_bf16 = multiply_bf16<S>,
      .multiply_q8 = multiply_q8<S>,
      .widen_bf16 = widen_bf16<S>,
      .norm = norm<S>,
      .relu = relu<S>,
      .gelu = gelu<S>,
      .fast_gelu = fast_gelu<S>,
      .silu = silu<S>,
      .sigmoid = sigmoid<S>,
      .multiply = multiply<S>,
      .add = add<S>,
      .multiply_to = multiply_to<S>,
      .read = S::read,
  };
}

}  // namespace
}  // namespace terrace
