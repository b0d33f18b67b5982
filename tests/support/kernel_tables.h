// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "engine/kernels/dense_kernels.h"

namespace terrace::test {

/// Tables that this CPU can run. isa_test.cpp reports which ones had to be left out.
inline std::vector<const DenseKernels*> available_dense_kernels() {
  std::vector<const DenseKernels*> tables;
  for (const Isa isa : available_isas()) tables.push_back(&dense_kernels(isa));
  return tables;
}

}  // namespace terrace::test
