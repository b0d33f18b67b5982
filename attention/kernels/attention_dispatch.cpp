// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "attention/kernels/attention_tables.h"
#include "engine/error.h"

namespace terrace {

const AttentionKernels& attention_kernels(Isa isa) {
  TERRACE_CHECK(isa_available(isa), kUnsupported,
                std::string("instruction set '") + isa_name(isa) + "' is not available on this CPU");
  switch (isa) {
    case Isa::kScalar:
      return attention_kernels_scalar();
#ifdef TERRACE_HAVE_AVX2
    case Isa::kAvx2:
      return attention_kernels_avx2();
#endif
#ifdef TERRACE_HAVE_AVXVNNI
    case Isa::kAvxVnni:
      return attention_kernels_avxvnni();
#endif
#ifdef TERRACE_HAVE_AVX512
    case Isa::kAvx512:
      return attention_kernels_avx512();
#endif
#ifdef TERRACE_HAVE_AVX512VNNI
    case Isa::kAvx512Vnni:
      return attention_kernels_avx512vnni();
#endif
#ifdef TERRACE_HAVE_AVX512AMX
    case Isa::kAvx512Amx:
      return attention_kernels_avx512amx();
#endif
#ifdef TERRACE_HAVE_NEON
    case Isa::kNeon:
      return attention_kernels_neon();
#endif
#ifdef TERRACE_HAVE_NEONDOT
    case Isa::kNeonDot:
      return attention_kernels_neondot();
#endif
    default:
      break;
  }
  throw Error(ErrorCode::kUnsupported,
              std::string("no attention kernels for instruction set '") + isa_name(isa) + "' in this build");
}

}  // namespace terrace
