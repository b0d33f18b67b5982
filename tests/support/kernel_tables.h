// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "engine/kernels/dense_kernels.h"
#include "engine/kernels/dense_tables.h"

namespace terrace::test {

/// Tables that this CPU can run, also the ones that would be chosen on a CPU that prefetches differently.
/// isa_test.cpp reports which ones had to be left out.
inline std::vector<const DenseKernels*> available_dense_kernels() {
  std::vector<const DenseKernels*> tables;
  for (const Isa isa : available_isas()) {
    tables.push_back(&dense_kernels(isa));
#if defined(__x86_64__)
    if (isa == Isa::kAvx512) tables.push_back(&dense_kernels_avx512(hardware_prefetches_streams()));
    if (isa == Isa::kAvx512Vnni) tables.push_back(&dense_kernels_avx512vnni(hardware_prefetches_streams()));
#endif
  }
  return tables;
}

}  // namespace terrace::test
