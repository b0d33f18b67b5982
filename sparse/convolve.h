// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "engine/exec.h"
#include "engine/recurrent_state.h"
#include "engine/tensor.h"
#include "sparse/module_conv.h"

namespace terrace {

/// One of several convolutions that read the same rows: equally many modules, channels and steps.
struct ConvolutionTask {
  const LocallyConvDense* conv = nullptr;
  Rows y;
};

/// y = conv(tail, x) of every task, then the tail, n_steps - 1 rows, oldest first, moves on. For one row
/// every thread makes all windows for itself, which costs less than a phase to share them, and goes on with
/// its own units: one phase. For many rows the windows are made and packed first. Same bits.
void convolve(Exec& exec, ConstRows x, const RecurrentSlot& tail, std::span<const ConvolutionTask> tasks);

/// Whether the leader does all of that for one row itself.
bool convolves_alone(std::span<const ConvolutionTask> tasks, std::size_t n_threads) noexcept;

}  // namespace terrace
