// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "engine/runtime.h"
#include "engine/tensor.h"
#include "models/model.h"

namespace terrace::tools {

/// What the machine does at best, measured in this process with the runtime's threads.
struct MachineRates {
  /// Of the dense kernels for one dtype and one activation row, on weights that stay in L2.
  double multiply_adds_per_s = 0;
  /// The same for the sixteen rows, packed if the dtype has packs, that a layer of modules makes of a token.
  double module_multiply_adds_per_s = 0;
  /// An empty phase.
  double seconds_per_phase = 0;
};

/// Takes about 50 ms.
MachineRates measure_rates(Runtime& runtime, DType dtype);

/// What one token takes; the other input of the prediction.
struct TokenWork {
  double weight_bytes_per_s = 0;  ///< read rate of a buffer as large as the weights that the token reads
  std::uint64_t state_bytes = 0;  ///< keys, values, recurrent state
  double state_bytes_per_s = 0;   ///< read rate of memory
  double phases = 0;              ///< shared by the threads
};

/// Seconds per token if only bytes, multiply-adds and phases counted:
///
///   sum over tensors max(bytes / weight_bytes_per_s, multiply-adds / multiply_adds_per_s)
///     + state_bytes / state_bytes_per_s + phases * seconds_per_phase
///
/// The serial form of the roofline of Pope et al. 2022 ("Efficiently Scaling Transformer Inference") with the
/// barriers of one machine in place of the network. It leaves out norms, softmax, quantising activations, the
/// latency of gathered rows, and chunks that end unevenly. A faster measurement means that caches helped.
double predicted_seconds(const Model& model, const MachineRates& rates, const TokenWork& work);

}  // namespace terrace::tools
