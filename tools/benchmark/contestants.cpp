// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmark/contestants.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <span>

#include "engine/error.h"
#include "engine/paging.h"
#include "engine/runtime.h"
#include "models/init.h"
#include "models/model_cost.h"
#include "models/state_plan.h"
#include "models/stored_plan.h"
#include "models/token_cost.h"
#include "tools/common/interrupt.h"
#include "tools/common/progress.h"
#include "tools/common/warnings.h"

namespace terrace::tools {
namespace {

/// Scratch memory of a session, the bandwidth probe's buffer, the program itself.
constexpr std::uint64_t kOverheadBytes = 512U << 20;

/// Bytes of the weights that `n_tokens` tokens touch together when each picks its rows at random, as with
/// random weights.
std::uint64_t bytes_touched_by(std::span<const StoredTensor> tensors, std::size_t n_tokens) {
  double bytes = 0;
  for (const auto& [planned, dtype] : tensors) {
    const double share = static_cast<double>(planned.touched) / static_cast<double>(planned.elements());
    const double touched_by_some = 1 - std::pow(1 - share, static_cast<double>(n_tokens));
    bytes += touched_by_some * static_cast<double>(stored_bytes(planned, dtype));
  }
  return static_cast<std::uint64_t>(bytes);
}

void check_room(const std::vector<PlannedModel>& planned, DType dtype, const std::string& name,
                const std::string& folder, std::size_t context, KvType kv_type) {
  std::uint64_t file_bytes = 0;
  std::uint64_t token_bytes = 0;
  std::uint64_t of_sessions = 0;
  std::string parts;
  for (const PlannedModel& model : planned) {
    const std::vector<StoredTensor> tensors = stored_plan(model.config, dtype);
    const std::uint64_t bytes = model_cost(model.config, tensors).total.stored_bytes;
    file_bytes += bytes;
    token_bytes += bytes_touched_by(tensors, context);
    of_sessions +=
        session_bytes(model.config, state_plan(model.config), kv_type, context, /*encoder_length=*/0);
    parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", model.variant, format_bytes(bytes));
  }
  // A sparse model runs from a file larger than memory while what its tokens touch stays there.
  const std::uint64_t memory = available_memory_bytes();
  const std::uint64_t others = of_sessions + kOverheadBytes;
  const std::uint64_t needed = others + (file_bytes + others <= memory ? file_bytes : token_bytes);
  TERRACE_CHECK(
      needed <= memory, kOutOfMemory,
      fmt::format(
          "{} in {} needs {} of memory (files: {}; the weights that {} tokens touch: {}; sessions: {}) "
          "and {} are available; a smaller --dtype, fewer --blocks, or --variant for one model at a time "
          "need less",
          name, dtype_name(dtype), format_bytes(needed), parts, context, format_bytes(token_bytes),
          format_bytes(of_sessions), format_bytes(memory)));
  const std::uint64_t disk = free_disk_bytes(folder);
  TERRACE_CHECK(file_bytes <= disk, kIo,
                fmt::format("{} in {} needs {} on the disk of {} and {} are free; --dir names another folder",
                            name, dtype_name(dtype), format_bytes(file_bytes), folder, format_bytes(disk)));
}

}  // namespace

std::vector<Contestant> make_contestants(const std::vector<PlannedModel>& planned, DType dtype,
                                         const std::string& name, const std::string& folder,
                                         std::size_t context, KvType kv_type) {
  check_room(planned, dtype, name, folder, context, kv_type);
  const TemporaryFolder temporary(folder);
  std::vector<Contestant> contestants;
  for (const PlannedModel& model : planned) {
    constexpr std::uint64_t kMega = 1'000'000;
    std::optional<Progress> bar;
    InitOptions init;
    init.dtype = dtype;
    init.seed = 1;
    init.n_threads = Runtime::default_threads();
    init.progress = [&](std::uint64_t done, std::uint64_t total) {
      if (!bar) bar.emplace(fmt::format("{} {}", model.variant, dtype_name(dtype)), total / kMega, "MB");
      bar->update(done / kMega);
      return !Interrupt::requested();
    };
    const std::string path = temporary.file(model.variant);
    init_model(model.config, path, init);
    contestants.push_back({model.variant, Model::load(path), model.blocks_left_out});
    warn_about_memory(*contestants.back().model);
  }
  return contestants;
}

}  // namespace terrace::tools
