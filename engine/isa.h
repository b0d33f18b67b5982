// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace terrace {

/// Instruction sets for which kernels exist, weakest first within an architecture.
enum class Isa : std::uint8_t {
  kScalar,      ///< the specification; runs anywhere
  kAvx2,        ///< AVX2 + FMA
  kAvxVnni,     ///< kAvx2 + AVX-VNNI (int8 dot products without AVX-512)
  kAvx512,      ///< AVX-512 F/CD/DQ/BW/VL
  kAvx512Vnni,  ///< kAvx512 + VNNI (int8 dot products)
  kAvx512Amx,   ///< kAvx512Vnni + AMX-INT8, AMX-BF16 (tiles of products, for many activation rows)
  kNeon,        ///< aarch64 Advanced SIMD
  kNeonDot      ///< kNeon + SDOT
};

/// Name as used by TERRACE_ISA: scalar, avx2, avxvnni, avx512, avx512vnni, avx512amx, neon, neondot.
const char* isa_name(Isa isa) noexcept;

/// True if kernels for `isa` were built and this CPU (and its operating system) can run them.
bool isa_available(Isa isa) noexcept;

/// All available ones, weakest first; always starts with kScalar.
std::vector<Isa> available_isas();

/// The strongest available one.
Isa best_isa() noexcept;

/// Whether this CPU keeps several streams of memory going by itself, so that software prefetch of sequential
/// reads costs more than it gains, as on AMD's. Changes the speed of kernels, never their results.
bool hardware_prefetches_streams() noexcept;

/// Parses a name. Throws Error{kBadArgument} for an unknown name and Error{kUnsupported} for one this CPU or
/// build lacks: a forced ISA never falls back in silence.
Isa parse_isa(std::string_view name);

/// TERRACE_ISA if set, else best_isa(). Throws like parse_isa.
Isa isa_from_environment();

}  // namespace terrace
