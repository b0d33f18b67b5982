// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "attention/kernels/attend_page_impl.h"
#include "attention/kernels/attend_page_q4_impl.h"
#include "attention/kernels/attend_page_q8_impl.h"
#include "attention/kernels/attention_tables.h"
#include "attention/kernels/gathered_rows_impl.h"
#include "attention/kernels/quantize_impl.h"
#include "attention/kernels/rows_impl.h"

// The table of one instruction set, from its struct `S` (engine/kernels/lanes.h, and what the bodies here
// say).

namespace terrace {
namespace {

template <class S>
constexpr AttentionKernels make_attention_kernels(Isa isa, const char* name) noexcept {
  return {isa,
          name,
          attend_page<S, float>,
          attend_page<S, std::uint16_t>,
          attend_page_q8<S>,
          attend_page_q4<S>,
          quantize_query<S>,
          quantize_query_q4<S>,
          quantize_q4<S>,
          merge_states<S>,
          finish_state<S>,
          softmax_weights<S>,
          exp_all<S>,
          dot_rows<S, float>,
          dot_rows<S, std::uint16_t>,
          dot_rows<S, std::int8_t>,
          weighted_sum<S, float>,
          weighted_sum<S, std::uint16_t>,
          weighted_sum<S, std::int8_t>,
          linear_attention<S>};
}

}  // namespace
}  // namespace terrace
