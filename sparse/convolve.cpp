// SPDX-License-Identifier: Apache-2.0
#include "sparse/convolve.h"

#include <algorithm>
#include <array>
#include <new>
#include <optional>

#include "engine/ceil_div.h"
#include "engine/error.h"
#include "sparse/convolution_windows.h"

namespace terrace {
namespace {

/// Convolutions of one call: those of q, k and v.
constexpr std::size_t kMostConvolutions = 3;

/// The units of all tasks, one after the other in blocks of whole packs' rows, cut into chunks that read
/// about as many weights.
class UnitCut {
 public:
  explicit UnitCut(std::span<const ConvolutionTask> tasks) noexcept : tasks_(tasks) {
    for (const ConvolutionTask& task : tasks) {
      n_blocks_ += blocks_of(task);
      columns_ += blocks_of(task) * columns_of(task);
    }
  }

  std::size_t n_blocks() const noexcept { return n_blocks_; }
  /// Of the average block with `n_windows` windows.
  std::size_t work_per_block(std::size_t n_windows) const noexcept {
    std::size_t work = 0;
    for (const ConvolutionTask& task : tasks_) {
      const LocallyConvDense& conv = *task.conv;
      work += blocks_of(task) * dot_work(conv.weight().dtype, columns_of(task), n_windows, conv.packs());
    }
    return kPackRows * work / std::max<std::size_t>(1, n_blocks_);
  }

  /// Calls fn(task, first unit, end) for the units of chunk `chunk` of `n_chunks`.
  template <class F>
  void for_units(std::size_t chunk, std::size_t n_chunks, F&& fn) const {
    std::size_t before = 0;  // columns of the tasks before
    for (std::size_t i = 0; i < tasks_.size(); ++i) {
      const ConvolutionTask& task = tasks_[i];
      // The first block that begins at or after a chunk's share of the columns.
      const auto first_block = [&](std::size_t of_chunk) {
        const std::size_t share = of_chunk * columns_;
        if (share <= before * n_chunks) return std::size_t{0};
        const std::size_t behind = share - before * n_chunks, block = columns_of(task) * n_chunks;
        return std::min(blocks_of(task), ceil_div(behind, block));
      };
      const std::size_t begin = first_block(chunk), end = first_block(chunk + 1);
      if (begin < end) fn(i, begin * kPackRows, std::min(task.conv->n_units(), end * kPackRows));
      before += blocks_of(task) * columns_of(task);
    }
  }

 private:
  static std::size_t blocks_of(const ConvolutionTask& task) noexcept {
    return ceil_div(task.conv->n_units(), kPackRows);
  }
  static std::size_t columns_of(const ConvolutionTask& task) noexcept { return task.conv->weight().cols; }

  std::span<const ConvolutionTask> tasks_;
  std::size_t n_blocks_ = 0;
  std::size_t columns_ = 0;
};

void convolve_rows(Exec& exec, const SeenRows& seen, std::size_t n_rows,
                   std::span<const ConvolutionTask> tasks) {
  const RunRows rows(exec, seen, n_rows, tasks);
  exec.for_range(n_rows, 1, rows.width() * sizeof(float), [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) rows.fill(t);
  });
  std::array<std::optional<PreparedRows>, kMostConvolutions> windows;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const LocallyConvDense& conv = *tasks[i].conv;
    if (i > 0 && same_windows(conv, *tasks[i - 1].conv)) {
      windows[i] = windows[i - 1];
      continue;
    }
    windows[i] = rows.windows(conv, rows.reserve_windows(exec));
    windows[i]->pack(exec, conv.kernels(), conv.packs());
  }
  const UnitCut cut(tasks);
  const std::uint32_t n_chunks =
      exec.chunks_of(cut.n_blocks(), cut.work_per_block(n_rows * rows.n_modules()));
  exec.team.run(n_chunks, [&](std::uint32_t chunk) {
    cut.for_units(chunk, n_chunks, [&](std::size_t i, std::size_t begin, std::size_t end) {
      tasks[i].conv->forward_range(*windows[i], begin, end, tasks[i].y);
    });
  });
}

/// The windows of one row, which a thread makes for itself in memory of its own.
class RowWindows {
 public:
  RowWindows(Exec& exec, const SeenRows& seen, std::span<const ConvolutionTask> tasks)
      : row_(exec, seen, 1, tasks), memory_(row_.reserve_windows(exec)) {
    std::size_t bytes = 0;
    for (const ConvolutionTask& task : tasks) {
      const LocallyConvDense& conv = *task.conv;
      bytes = std::max(bytes, row_.unfilled_windows(conv, memory_).packs_bytes(conv.packs()));
    }
    packs_ = exec.ws.take<std::byte>(bytes);
  }

  /// Those that `conv` reads; they replace the ones before.
  const PreparedRows& of(const LocallyConvDense& conv) noexcept {
    if (made_for_ && same_windows(conv, *made_for_)) return *windows_;
    if (!made_for_) row_.fill(0);
    windows_ = row_.windows(conv, memory_).packed_into(conv.kernels(), conv.packs(), packs_);
    made_for_ = &conv;
    return *windows_;
  }

 private:
  RunRows row_;
  RunRows::Windows memory_;
  std::byte* packs_ = nullptr;
  const LocallyConvDense* made_for_ = nullptr;
  std::optional<PreparedRows> windows_;
};

std::uint32_t chunks_of_row(const UnitCut& cut, std::span<const ConvolutionTask> tasks,
                            std::size_t n_threads) noexcept {
  const std::size_t work = cut.work_per_block(tasks.front().conv->n_modules());
  return Exec::one_chunk_each(cut.n_blocks(), work, n_threads);
}

void convolve_row(Exec& exec, const SeenRows& seen, std::span<const ConvolutionTask> tasks) {
  const UnitCut cut(tasks);
  const std::uint32_t n_chunks = chunks_of_row(cut, tasks, exec.team.size());
  auto* const windows = exec.ws.take<RowWindows>(n_chunks);
  for (std::uint32_t chunk = 0; chunk < n_chunks; ++chunk)
    new (windows + chunk) RowWindows(exec, seen, tasks);
  exec.team.run(n_chunks, [&](std::uint32_t chunk) {
    cut.for_units(chunk, n_chunks, [&](std::size_t i, std::size_t begin, std::size_t end) {
      tasks[i].conv->forward_range(windows[chunk].of(*tasks[i].conv), begin, end, tasks[i].y);
    });
  });
}

}  // namespace

bool convolves_alone(std::span<const ConvolutionTask> tasks, std::size_t n_threads) noexcept {
  return chunks_of_row(UnitCut(tasks), tasks, n_threads) <= 1;
}

void convolve(Exec& exec, ConstRows x, const RecurrentSlot& tail, std::span<const ConvolutionTask> tasks) {
  TERRACE_DCHECK(tasks.size() <= kMostConvolutions);
  const Workspace::Scope scope(exec.ws);
  const SeenRows seen(x, tail, *tasks.front().conv);
  if (x.n == 1) {
    convolve_row(exec, seen, tasks);
  } else {
    convolve_rows(exec, seen, x.n, tasks);
  }
  seen.move_tail();
}

}  // namespace terrace
