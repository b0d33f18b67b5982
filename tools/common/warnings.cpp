// SPDX-License-Identifier: Apache-2.0
#include "tools/common/warnings.h"

#include <fmt/format.h>

#include <set>
#include <string>

#include "engine/paging.h"
#include "engine/runtime.h"
#include "tools/common/output.h"
#include "tools/common/resources.h"

namespace terrace::tools {

void warn(const std::string& message) {
  static std::set<std::string> said;
  if (said.insert(message).second) write_stderr(fmt::format("terrace: warning: {}\n", message));
}

void warn_about_threads(unsigned n_threads) {
  const unsigned cores = Runtime::default_threads();
  if (n_threads <= cores) return;
  warn(fmt::format("{} threads on {} core{}: threads that share a core wait for each other", n_threads, cores,
                   cores == 1 ? "" : "s"));
}

void warn_about_isa(Isa isa) {
  if (isa != Isa::kScalar) return;
  warn(best_isa() == Isa::kScalar
           ? "this CPU has neither AVX2 nor NEON, or the build has no kernels for it: scalar code runs, "
             "several times slower"
           : fmt::format("TERRACE_ISA=scalar: scalar code runs, several times slower than {}",
                         isa_name(best_isa())));
}

void warn_about_memory(const Model& model) {
  if (!model.rows_on_demand()) return;
  warn(fmt::format(
      "{} has {}, and {} of memory are free: what a token needs is read from the disk when "
      "it is not in memory yet",
      model.file().label(), format_bytes(model.file().file_bytes()), format_bytes(available_memory_bytes())));
}

}  // namespace terrace::tools
