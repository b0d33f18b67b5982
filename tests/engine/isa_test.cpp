// SPDX-License-Identifier: Apache-2.0
#include "engine/isa.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "engine/kernels/dense_kernels.h"
#include "tests/support/expect_error.h"

namespace terrace::test {
namespace {

constexpr Isa kAll[] = {Isa::kScalar,     Isa::kAvx2,      Isa::kAvxVnni, Isa::kAvx512,
                        Isa::kAvx512Vnni, Isa::kAvx512Amx, Isa::kNeon,    Isa::kNeonDot};

TEST_CASE("instruction sets under test") {
  std::string tested, skipped;
  for (const Isa isa : kAll) ((isa_available(isa) ? tested : skipped) += ' ') += isa_name(isa);
  MESSAGE("tested:" << tested << "; skipped, as this CPU lacks them:" << skipped);
  CHECK(isa_available(Isa::kScalar));
}

TEST_CASE("available_isas: weakest first, all of them available, the last one is the best") {
  const std::vector<Isa> isas = available_isas();
  REQUIRE_FALSE(isas.empty());
  CHECK(isas.front() == Isa::kScalar);
  CHECK(isas.back() == best_isa());
  CHECK(std::is_sorted(isas.begin(), isas.end()));
  for (const Isa isa : kAll) {
    CHECK((std::find(isas.begin(), isas.end(), isa) != isas.end()) == isa_available(isa));
  }
}

TEST_CASE("parse_isa: names of available sets; a forced set never falls back in silence") {
  for (const Isa isa : kAll) {
    if (isa_available(isa)) {
      CHECK(parse_isa(isa_name(isa)) == isa);
    } else {
      expect_error(ErrorCode::kUnsupported, isa_name(isa), [&] { parse_isa(isa_name(isa)); });
    }
  }
  for (const char* bad : {"", "AVX2", "avx", "sse2", "avx2 "}) {
    expect_error(ErrorCode::kBadArgument, "expected one of scalar, avx2", [&] { parse_isa(bad); });
  }
}

TEST_CASE("dense_kernels: a table for every available set, an error for the others") {
  for (const Isa isa : kAll) {
    if (isa_available(isa)) {
      CHECK(dense_kernels(isa).isa == isa);
      CHECK(std::string(dense_kernels(isa).name) == isa_name(isa));
    } else {
      expect_error(ErrorCode::kUnsupported, isa_name(isa), [&] { dense_kernels(isa); });
    }
  }
}

TEST_CASE("TERRACE_ISA forces a set") {
  const char* const before = std::getenv("TERRACE_ISA");
  const std::string saved = before ? before : "";
  ::setenv("TERRACE_ISA", "scalar", 1);
  CHECK(isa_from_environment() == Isa::kScalar);
  ::setenv("TERRACE_ISA", "mmx", 1);
  expect_error(ErrorCode::kBadArgument, "TERRACE_ISA: unknown instruction set 'mmx'",
               [] { isa_from_environment(); });
  ::setenv("TERRACE_ISA", "", 1);
  CHECK(isa_from_environment() == best_isa());
  ::unsetenv("TERRACE_ISA");
  CHECK(isa_from_environment() == best_isa());
  if (before) ::setenv("TERRACE_ISA", saved.c_str(), 1);
}

}  // namespace
}  // namespace terrace::test
