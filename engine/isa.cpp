// SPDX-License-Identifier: Apache-2.0
#include "engine/isa.h"

#include <array>
#include <cstdlib>
#include <string>

#include "engine/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace terrace {
namespace {

constexpr std::array kAllIsas = {Isa::kScalar,     Isa::kAvx2,      Isa::kAvxVnni, Isa::kAvx512,
                                 Isa::kAvx512Vnni, Isa::kAvx512Amx, Isa::kNeon,    Isa::kNeonDot};

#if defined(__x86_64__)
// __builtin_cpu_supports also asks the operating system (XCR0) whether it saves the wide registers.
bool cpu_has_avx2() noexcept { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool cpu_has_avx_vnni() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kAvxVnniBit = 1U << 4;
  return cpu_has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & kAvxVnniBit) != 0;
}
bool cpu_has_avx512() noexcept {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl");
}
bool cpu_has_avx512_vnni() noexcept { return cpu_has_avx512() && __builtin_cpu_supports("avx512vnni"); }

/// AMX-INT8 and AMX-BF16 of the CPU (with the vector instructions that make bf16 numbers), saved by the
/// operating system and permitted to this process: Linux gives the tile registers to those who ask, once, for
/// all threads that start later and for the one that asks.
bool tiles_are_usable() noexcept {
#if defined(__linux__)
  static const bool usable = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kNeeded = (1U << 24) | (1U << 25) | (1U << 22);  // tiles, int8, bf16
    if (!__builtin_cpu_supports("avx512bf16")) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kNeeded) != kNeeded) return false;
    constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return usable;
#else
  return false;
#endif
}
#endif

}  // namespace

const char* isa_name(Isa isa) noexcept {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Vnni:
      return "avx512vnni";
    case Isa::kAvx512Amx:
      return "avx512amx";
    case Isa::kNeon:
      return "neon";
    case Isa::kNeonDot:
      return "neondot";
  }
  return "?";
}

bool isa_available(Isa isa) noexcept {
  switch (isa) {
    case Isa::kScalar:
      return true;
#if defined(__x86_64__)
    case Isa::kAvx2:
      return cpu_has_avx2();
    case Isa::kAvxVnni:
      return cpu_has_avx_vnni();
    case Isa::kAvx512:
      return cpu_has_avx512();
    case Isa::kAvx512Vnni:
      return cpu_has_avx512_vnni();
    case Isa::kAvx512Amx:
      return cpu_has_avx512_vnni() && tiles_are_usable();
#elif defined(__aarch64__)
    case Isa::kNeon:
      return true;
#if defined(__linux__)
    case Isa::kNeonDot:
      return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#endif
#endif
    default:
      return false;
  }
}

std::vector<Isa> available_isas() {
  std::vector<Isa> result;
  for (const Isa isa : kAllIsas) {
    if (isa_available(isa)) result.push_back(isa);
  }
  return result;
}

Isa best_isa() noexcept {
  Isa best = Isa::kScalar;
  for (const Isa isa : kAllIsas) {
    if (isa_available(isa)) best = isa;
  }
  return best;
}

bool hardware_prefetches_streams() noexcept {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd") != 0;
#else
  return false;
#endif
}

Isa parse_isa(std::string_view name) {
  for (const Isa isa : kAllIsas) {
    if (name != isa_name(isa)) continue;
    TERRACE_CHECK(isa_available(isa), kUnsupported,
                  "instruction set '" + std::string(name) +
                      "' is not available on this CPU (best here: " + isa_name(best_isa()) + ")");
    return isa;
  }
  throw Error(ErrorCode::kBadArgument,
              "unknown instruction set '" + std::string(name) +
                  "'; expected one of scalar, avx2, avxvnni, avx512, avx512vnni, avx512amx, neon, neondot");
}

Isa isa_from_environment() {
  // Unsafe only beside someone who changes the environment; nothing here does.
  const char* forced = std::getenv("TERRACE_ISA");  // NOLINT(concurrency-mt-unsafe)
  if (!forced || !*forced) return best_isa();
  try {
    return parse_isa(forced);
  } catch (const Error& error) {
    throw Error(error.code(), std::string("TERRACE_ISA: ") + error.what());
  }
}

}  // namespace terrace
