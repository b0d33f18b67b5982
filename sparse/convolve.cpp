// SPDX-License-Identifier: Apache-2.0
#include "sparse/convolve.h"

#include <algorithm>
#include <array>
#include <new>
#include <numeric>
#include <optional>

#include "engine/error.h"

namespace terrace {
namespace {

/// Convolutions of one call: those of q, k and v.
constexpr std::size_t kMostConvolutions = 3;

/// The rows that a convolution over n_steps steps sees: those of a call and those before it.
class SeenRows {
 public:
  SeenRows(ConstRows x, std::span<float> tail, const LocallyConvDense& conv) noexcept
      : x_(x), tail_(tail), n_before_(conv.n_steps() - 1) {
    TERRACE_DCHECK(tail.size() == n_before_ * x.width);
  }

  std::size_t n_steps() const noexcept { return n_before_ + 1; }
  std::size_t width() const noexcept { return x_.width; }
  /// What row t sees at step i: row t itself at the last one.
  const float* at(std::size_t t, std::size_t i) const noexcept {
    return t + i >= n_before_ ? x_.row(t + i - n_before_) : tail_.data() + (t + i) * x_.width;
  }
  /// The last rows become the tail.
  void move_tail() const noexcept {
    // Oldest row first: a row that moves within the tail moves towards its front.
    for (std::size_t i = 0; i < n_before_ && x_.n > 0; ++i) {
      std::copy_n(at(x_.n - 1, i + 1), x_.width, tail_.data() + i * x_.width);
    }
  }

 private:
  ConstRows x_;
  std::span<float> tail_;
  std::size_t n_before_;
};

/// How many modules to each side the convolutions see.
std::size_t reach_of(std::span<const ConvolutionTask> tasks) noexcept {
  std::size_t reach = 0;
  for (const ConvolutionTask& task : tasks) reach = std::max(reach, task.conv->kernel_size() / 2);
  return reach;
}

bool same_windows(const LocallyConvDense& a, const LocallyConvDense& b) noexcept {
  return a.kernel_size() == b.kernel_size() && a.weight().dtype == b.weight().dtype;
}

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
  /// Of `n_windows` windows, as Exec::for_range counts it: four bytes a column, or a multiply-add per window,
  /// about eight of them in the time of a byte.
  std::size_t work_per_block(std::size_t n_windows) const noexcept {
    return kPackRows * columns_ / n_blocks_ * std::max<std::size_t>(4, n_windows / 8);
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
        return std::min(blocks_of(task), (behind + block - 1) / block);
      };
      const std::size_t begin = first_block(chunk), end = first_block(chunk + 1);
      if (begin < end) fn(i, begin * kPackRows, std::min(task.conv->n_units(), end * kPackRows));
      before += blocks_of(task) * columns_of(task);
    }
  }

 private:
  static std::size_t blocks_of(const ConvolutionTask& task) noexcept {
    return (task.conv->n_units() + kPackRows - 1) / kPackRows;
  }
  static std::size_t columns_of(const ConvolutionTask& task) noexcept { return task.conv->weight().cols; }

  std::span<const ConvolutionTask> tasks_;
  std::size_t n_blocks_ = 0;
  std::size_t columns_ = 0;
};

/// Rows of runs: [S + 2 * reach modules, zeros at both ends][step][channel], so that what a kernel sees
/// around a module is contiguous.
Rows rows_of_runs(Exec& exec, const SeenRows& seen, std::size_t n_rows, std::size_t n_modules,
                  std::size_t reach) {
  const std::size_t n_channels = seen.width() / n_modules, n_steps = seen.n_steps();
  const std::size_t run = n_steps * n_channels;
  const std::size_t width = (n_modules + 2 * reach) * run;
  const Rows rows{exec.ws.take<float>(n_rows * width), n_rows, width, width};
  exec.for_range(n_rows, 1, width * sizeof(float), [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) {
      std::fill_n(rows.row(t), reach * run, 0.0F);
      std::fill_n(rows.row(t) + width - reach * run, reach * run, 0.0F);
      for (std::size_t i = 0; i < n_steps; ++i) {
        const float* source = seen.at(t, i);
        float* target = rows.row(t) + reach * run + i * n_channels;
        for (std::size_t s = 0; s < n_modules; ++s, source += n_channels, target += run) {
          std::copy_n(source, n_channels, target);
        }
      }
    }
  });
  return rows;
}

void convolve_rows(Exec& exec, const SeenRows& seen, std::size_t n_rows,
                   std::span<const ConvolutionTask> tasks) {
  const std::size_t n_modules = tasks.front().conv->n_modules();
  const std::size_t reach = reach_of(tasks), run = seen.n_steps() * seen.width() / n_modules;
  const Rows rows = rows_of_runs(exec, seen, n_rows, n_modules, reach);
  std::array<std::optional<PreparedRows>, kMostConvolutions> windows;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const LocallyConvDense& conv = *tasks[i].conv;
    if (i > 0 && same_windows(conv, *tasks[i - 1].conv)) {
      windows[i] = windows[i - 1];
      continue;
    }
    const DType dtype = conv.weight().dtype;
    windows[i] = PreparedRows::unpacked(exec, conv.kernels(), dtype, rows)
                     .windows(exec, run, reach - conv.kernel_size() / 2, n_modules, conv.kernel_size());
    windows[i]->pack(exec, conv.kernels(), dtype);
  }
  const UnitCut cut(tasks);
  const std::uint32_t n_chunks = exec.chunks_of(cut.n_blocks(), cut.work_per_block(n_rows * n_modules));
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
      : seen_(&seen),
        n_modules_(tasks.front().conv->n_modules()),
        n_channels_(seen.width() / n_modules_),
        reach_(reach_of(tasks)) {
    bool any_f32 = false, any_q8 = false;
    std::size_t columns = 0;
    for (const ConvolutionTask& task : tasks) {
      const WeightView& w = task.conv->weight();
      (is_quantized(w.dtype) ? any_q8 : any_f32) = true;
      columns = std::max(columns, w.cols);
    }
    const std::size_t n_runs = n_modules_ + 2 * reach_, n_values = n_runs * seen.n_steps() * n_channels_;
    if (any_f32) {
      f32_ = exec.ws.take<float>(n_values);
      f32_windows_ = exec.ws.take<const float*>(n_modules_);
    }
    if (!any_q8) return;
    q8_ = exec.ws.take<std::int8_t>(n_values + kPackColumns);  // padding of the last piece
    sums_ = exec.ws.take<std::int32_t>(n_runs);
    q8_windows_ = exec.ws.take<QuantizedRow>(n_modules_);
    packs_ = exec.ws.take<std::byte>((n_modules_ + kPackRows - 1) / kPackRows * pack_bytes(columns));
  }

  /// Those that `conv` reads; they replace the ones before.
  const PreparedRows& of(const LocallyConvDense& conv) noexcept {
    if (made_for_ && same_windows(conv, *made_for_)) return *windows_;
    const DType dtype = conv.weight().dtype;
    if (is_quantized(dtype) && !have_q8_) quantize_runs(conv.kernels());
    if (!is_quantized(dtype) && !have_f32_) copy_runs();
    windows_ = cut(conv).packed_into(conv.kernels(), dtype, packs_);
    made_for_ = &conv;
    return *windows_;
  }

 private:
  /// fn(index, channels or null) for every module seen and every step: index counts modules, then steps.
  template <class F>
  void for_pieces(F&& fn) const noexcept {
    std::size_t index = 0;
    for (std::size_t s = 0; s < n_modules_ + 2 * reach_; ++s) {
      const bool outside = s < reach_ || s >= n_modules_ + reach_;
      for (std::size_t i = 0; i < seen_->n_steps(); ++i) {
        fn(index++, outside ? nullptr : seen_->at(0, i) + (s - reach_) * n_channels_);
      }
    }
  }

  void copy_runs() noexcept {
    have_f32_ = true;
    for_pieces([&](std::size_t index, const float* channels) {
      float* const to = f32_ + index * n_channels_;
      channels ? std::copy_n(channels, n_channels_, to) : std::fill_n(to, n_channels_, 0.0F);
    });
  }

  /// With the scale of the whole row.
  void quantize_runs(const DenseKernels& kernels) noexcept {
    have_q8_ = true;
    float largest = 0.0F;
    for (std::size_t i = 0; i < seen_->n_steps(); ++i) {
      largest = std::max(largest, kernels.largest_magnitude(seen_->at(0, i), seen_->width()));
    }
    scale_ = scale_of(largest);
    std::fill_n(sums_, n_modules_ + 2 * reach_, 0);
    for_pieces([&](std::size_t index, const float* channels) {
      // Padding behind a piece is overwritten by the next one.
      std::int8_t* const to = q8_ + index * n_channels_;
      if (!channels) return static_cast<void>(std::fill_n(to, n_channels_, std::int8_t{0}));
      sums_[index / seen_->n_steps()] += kernels.quantize_by(channels, n_channels_, scale_, to);
    });
  }

  PreparedRows cut(const LocallyConvDense& conv) noexcept {
    const std::size_t run = seen_->n_steps() * n_channels_;
    const std::size_t first = reach_ - conv.kernel_size() / 2;
    if (!is_quantized(conv.weight().dtype)) {
      for (std::size_t i = 0; i < n_modules_; ++i) f32_windows_[i] = f32_ + (first + i) * run;
      return PreparedRows::of(f32_windows_, n_modules_, conv.weight().cols);
    }
    for (std::size_t i = 0; i < n_modules_; ++i) {
      const std::int32_t* const sums = sums_ + first + i;
      q8_windows_[i] = {q8_ + (first + i) * run, scale_, std::accumulate(sums, sums + conv.kernel_size(), 0)};
    }
    return PreparedRows::of(q8_windows_, n_modules_, conv.weight().cols);
  }

  const SeenRows* seen_;
  std::size_t n_modules_, n_channels_, reach_;
  float* f32_ = nullptr;          // runs ...
  std::int8_t* q8_ = nullptr;     // ... or quantised,
  std::int32_t* sums_ = nullptr;  // with the sum of each
  const float** f32_windows_ = nullptr;
  QuantizedRow* q8_windows_ = nullptr;
  std::byte* packs_ = nullptr;
  float scale_ = 0;
  bool have_f32_ = false, have_q8_ = false;
  const LocallyConvDense* made_for_ = nullptr;
  std::optional<PreparedRows> windows_;
};

void convolve_row(Exec& exec, const SeenRows& seen, std::span<const ConvolutionTask> tasks) {
  const UnitCut cut(tasks);
  const std::uint32_t n_chunks =
      exec.one_chunk_each(cut.n_blocks(), cut.work_per_block(tasks.front().conv->n_modules()));
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

void convolve(Exec& exec, ConstRows x, std::span<float> tail, std::span<const ConvolutionTask> tasks) {
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
