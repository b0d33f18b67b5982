// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/tensor.h"

namespace terrace {

/// Sees rows on their way through a model, for calibration. Called by the thread that runs the model, between
/// phases.
class RowObserver {
 public:
  virtual ~RowObserver() = default;
  /// The rows that feed-forward layer `layer` is about to map, normalised. Valid during the call.
  virtual void feed_forward_input(const void* layer, ConstRows rows) = 0;
};

}  // namespace terrace
