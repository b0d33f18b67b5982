// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/kernels/attention_kernels.h"
#include "attention/lsh_state.h"
#include "engine/memory.h"

namespace terrace {

/// Memory of attend_slots for up to `n_slots` slots.
struct SlotScratch {
  void* keys;      // [n_slots] pointers
  void* values;    // [n_slots] pointers
  float* weights;  // [n_slots]
  float* scales;   // [n_slots], of the values

  SlotScratch(Workspace& ws, std::size_t n_slots);
  static std::size_t bytes(std::size_t n_slots) noexcept;
};

/// Attention of one query row over the chosen slots of one head:
///   y [d_v] = sum over i of softmax_i(scale * <q, key_i>) * value_i
/// Keys and values of q8 count as int8 times their scale: <q, key> is made of floats, key by key, and then
/// multiplied by the key's scale, and the scale of a value joins its weight. n > 0.
void attend_slots(const AttentionKernels& kernels, const LshState& state, std::size_t head, const float* q,
                  float scale, const std::uint32_t* slots, std::size_t n, const SlotScratch& scratch,
                  float* y) noexcept;

}  // namespace terrace
