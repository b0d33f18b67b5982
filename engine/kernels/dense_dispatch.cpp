// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "engine/error.h"
#include "engine/kernels/dense_tables.h"

namespace terrace {

const DenseKernels& dense_kernels(Isa isa) {
  TERRACE_CHECK(isa_available(isa), kUnsupported,
                std::string("instruction set '") + isa_name(isa) + "' is not available on this CPU");
  switch (isa) {
    case Isa::kScalar:
      return dense_kernels_scalar();
#ifdef TERRACE_HAVE_AVX2
    case Isa::kAvx2:
      return dense_kernels_avx2();
#endif
#ifdef TERRACE_HAVE_AVXVNNI
    case Isa::kAvxVnni:
      return dense_kernels_avxvnni();
#endif
#ifdef TERRACE_HAVE_AVX512
    case Isa::kAvx512:
      return dense_kernels_avx512(!hardware_prefetches_streams());
#endif
#ifdef TERRACE_HAVE_AVX512VNNI
    case Isa::kAvx512Vnni:
      return dense_kernels_avx512vnni(!hardware_prefetches_streams());
#endif
#ifdef TERRACE_HAVE_AVX512AMX
    case Isa::kAvx512Amx:
      return dense_kernels_avx512amx();
#endif
#ifdef TERRACE_HAVE_NEON
    case Isa::kNeon:
      return dense_kernels_neon();
#endif
#ifdef TERRACE_HAVE_NEONDOT
    case Isa::kNeonDot:
      return dense_kernels_neondot();
#endif
    default:
      break;
  }
  throw Error(ErrorCode::kUnsupported,
              std::string("no linear kernels for instruction set '") + isa_name(isa) + "' in this build");
}

}  // namespace terrace
