// SPDX-License-Identifier: Apache-2.0
#include "attention/attend_slots.h"

namespace terrace {
namespace {

template <class T>
using DotRows = void (*)(const float* q, const T* const* rows, std::size_t n, std::size_t d, float scale,
                         float* y) noexcept;
template <class T>
using WeightedSum = DotRows<T>;  // of weights instead of a query

/// The slots of one head.
struct Slots {
  const LshState& state;
  std::size_t head;
  const std::uint32_t* slots;
  std::size_t n;
};

/// attend_slots for rows of T.
template <class T>
void attend(const AttentionKernels& kernels, DotRows<T> dot_rows, WeightedSum<T> weighted_sum,
            const Slots& at, const float* q, float scale, const SlotScratch& scratch, float* y) noexcept {
  const SlotRows& rows = at.state.rows();
  const bool scaled = rows.type() == KvType::kQ8;
  auto* const keys = static_cast<const T**>(scratch.keys);
  auto* const values = static_cast<const T**>(scratch.values);
  for (std::size_t i = 0; i < at.n; ++i) {
    keys[i] = reinterpret_cast<const T*>(at.state.key(at.head, at.slots[i]));
    values[i] = reinterpret_cast<const T*>(at.state.value(at.head, at.slots[i]));
  }
  dot_rows(q, keys, at.n, rows.d_k(), scale, scratch.weights);
  if (scaled) {
    for (std::size_t i = 0; i < at.n; ++i) {
      const float* const scales = at.state.scales(at.head, at.slots[i]);
      scratch.weights[i] *= scales[0];
      scratch.scales[i] = scales[1];
    }
  }
  const float sum = kernels.softmax_weights(scratch.weights, at.n);
  if (scaled) {
    for (std::size_t i = 0; i < at.n; ++i) scratch.weights[i] *= scratch.scales[i];
  }
  weighted_sum(scratch.weights, values, at.n, rows.d_v(), 1.0F / sum, y);
}

}  // namespace

SlotScratch::SlotScratch(Workspace& ws, std::size_t n_slots)
    : keys(ws.take<const void*>(n_slots)),
      values(ws.take<const void*>(n_slots)),
      weights(ws.take<float>(n_slots)),
      scales(ws.take<float>(n_slots)) {}

std::size_t SlotScratch::bytes(std::size_t n_slots) noexcept {
  return 2 * n_slots * (sizeof(const void*) + sizeof(float)) + 4 * kCacheLine;
}

void attend_slots(const AttentionKernels& kernels, const LshState& state, std::size_t head, const float* q,
                  float scale, const std::uint32_t* slots, std::size_t n, const SlotScratch& scratch,
                  float* y) noexcept {
  const Slots at{state, head, slots, n};
  switch (state.rows().type()) {
    case KvType::kF32:
      return attend<float>(kernels, kernels.dot_rows, kernels.weighted_sum, at, q, scale, scratch, y);
    case KvType::kBf16:
      return attend<std::uint16_t>(kernels, kernels.dot_rows_bf16, kernels.weighted_sum_bf16, at, q, scale,
                                   scratch, y);
    case KvType::kQ8:
    case KvType::kQ4:
      return attend<std::int8_t>(kernels, kernels.dot_rows_i8, kernels.weighted_sum_i8, at, q, scale, scratch,
                                 y);
  }
}

}  // namespace terrace
