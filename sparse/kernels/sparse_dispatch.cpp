// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "engine/error.h"
#include "sparse/kernels/sparse_tables.h"

namespace terrace {

const SparseKernels& sparse_kernels(Isa isa) {
  TERRACE_CHECK(isa_available(isa), kUnsupported,
                std::string("instruction set '") + isa_name(isa) + "' is not available on this CPU");
  switch (isa) {
    case Isa::kScalar:
      break;
#ifdef TERRACE_HAVE_AVX2
    case Isa::kAvx2:
    case Isa::kAvxVnni:  // no products of bytes of a shape of their own
      return sparse_kernels_avx2();
#endif
#ifdef TERRACE_HAVE_AVX512
    case Isa::kAvx512:
      return sparse_kernels_avx512();
#endif
#ifdef TERRACE_HAVE_AVX512VNNI
    case Isa::kAvx512Vnni:
    case Isa::kAvx512Amx:  // nothing here has the shape of tiles
      return sparse_kernels_avx512vnni();
#endif
#ifdef TERRACE_HAVE_NEON
    case Isa::kNeon:
    case Isa::kNeonDot:
      return sparse_kernels_neon();
#endif
    default:
      break;
  }
  return sparse_kernels_scalar();
}

}  // namespace terrace
