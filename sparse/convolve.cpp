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
  SeenRows(ConstRows x, const RecurrentSlot& state, const LocallyConvDense& conv) noexcept
      : x_(x), state_(state), tail_(state.now()), n_before_(conv.n_steps() - 1) {
    TERRACE_DCHECK(tail_.size() == n_before_ * x.width);
  }

  std::size_t n_steps() const noexcept { return n_before_ + 1; }
  std::size_t width() const noexcept { return x_.width; }
  /// What row t sees at step i: row t itself at the last one.
  const float* at(std::size_t t, std::size_t i) const noexcept {
    return t + i >= n_before_ ? x_.row(t + i - n_before_) : tail_.data() + (t + i) * x_.width;
  }
  /// The last rows become the tail.
  void move_tail() const noexcept {
    if (state_.leaves_rows()) {
      for (std::size_t t = 0; t + 1 < x_.n; ++t) copy_tail(t, state_.after(t));
    }
    if (x_.n > 0) copy_tail(x_.n - 1, tail_.data());
  }

 private:
  /// The tail after row t. Oldest row first: a row that moves within the tail moves towards its front.
  void copy_tail(std::size_t t, float* to) const noexcept {
    for (std::size_t i = 0; i < n_before_; ++i) std::copy_n(at(t, i + 1), x_.width, to + i * x_.width);
  }

  ConstRows x_;
  RecurrentSlot state_;
  std::span<float> tail_;  // of the state, now
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
  /// Of `n_windows` windows, as Exec::for_range counts it: a byte a column, or its multiply-adds.
  std::size_t work_per_block(std::size_t n_windows) const noexcept {
    const LocallyConvDense& conv = *tasks_.front().conv;
    const std::size_t rate = multiply_adds_per_byte(conv.packs());
    return kPackRows * columns_ / std::max<std::size_t>(1, n_blocks_) *
           std::max<std::size_t>(1, n_windows / rate);
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

/// What the convolutions see of one row, [S + 2 * reach modules, zeros at both ends][step][channel], so that
/// what a kernel sees around a module is contiguous: a module is a run of n_steps pieces.
class RowOfRuns {
 public:
  RowOfRuns(const SeenRows& seen, std::span<const ConvolutionTask> tasks) noexcept
      : seen_(&seen),
        n_modules_(tasks.front().conv->n_modules()),
        n_channels_(seen.width() / n_modules_),
        reach_(reach_of(tasks)) {}

  std::size_t n_modules() const noexcept { return n_modules_; }
  std::size_t n_runs() const noexcept { return n_modules_ + 2 * reach_; }
  std::size_t run() const noexcept { return seen_->n_steps() * n_channels_; }
  std::size_t width() const noexcept { return n_runs() * run(); }
  /// The first run of the first module's window.
  std::size_t first_run(const LocallyConvDense& conv) const noexcept {
    return reach_ - conv.kernel_size() / 2;
  }

  void copy(std::size_t t, float* to) const noexcept {
    float* const first = clear_ends(to);
    for (std::size_t i = 0; i < seen_->n_steps(); ++i) {
      for (std::size_t s = 0; s < n_modules_; ++s) {
        std::copy_n(seen_->at(t, i) + s * n_channels_, n_channels_, first + s * run() + i * n_channels_);
      }
    }
  }

  /// Quantises row t into width() bytes; `sums` gets that of every run. Returns the scale, that of the whole
  /// row.
  float quantize(const DenseKernels& kernels, std::size_t t, std::int8_t* to,
                 std::int32_t* sums) const noexcept {
    float largest = 0.0F;
    for (std::size_t i = 0; i < seen_->n_steps(); ++i) {
      largest = std::max(largest, kernels.largest_magnitude(seen_->at(t, i), seen_->width()));
    }
    const float scale = scale_of(largest);
    std::fill_n(sums, n_runs(), 0);
    std::int8_t* const first = clear_ends(to);
    for (std::size_t i = 0; i < seen_->n_steps(); ++i) {
      kernels.quantize_runs(seen_->at(t, i), n_modules_, n_channels_, scale, first + i * n_channels_, run(),
                            sums + reach_);
    }
    return scale;
  }

 private:
  /// Zeros in the runs outside; returns where the first module's begins.
  template <class T>
  T* clear_ends(T* to) const noexcept {
    T* const first = to + reach_ * run();
    std::fill(to, first, T{0});
    std::fill_n(first + n_modules_ * run(), reach_ * run(), T{0});
    return first;
  }

  const SeenRows* seen_;
  std::size_t n_modules_, n_channels_, reach_;
};

void convolve_rows(Exec& exec, const SeenRows& seen, std::size_t n_rows,
                   std::span<const ConvolutionTask> tasks) {
  const RowOfRuns runs(seen, tasks);
  const Rows rows{exec.ws.take<float>(n_rows * runs.width()), n_rows, runs.width(), runs.width()};
  exec.for_range(n_rows, 1, runs.width() * sizeof(float), [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) runs.copy(t, rows.row(t));
  });
  std::array<std::optional<PreparedRows>, kMostConvolutions> windows;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const LocallyConvDense& conv = *tasks[i].conv;
    if (i > 0 && same_windows(conv, *tasks[i - 1].conv)) {
      windows[i] = windows[i - 1];
      continue;
    }
    const DType dtype = conv.weight().dtype;
    windows[i] = PreparedRows::unpacked(exec, conv.kernels(), dtype, rows)
                     .windows(exec, runs.run(), runs.first_run(conv), runs.n_modules(), conv.kernel_size());
    windows[i]->pack(exec, conv.kernels(), conv.packs());
  }
  const UnitCut cut(tasks);
  const std::uint32_t n_chunks =
      exec.chunks_of(cut.n_blocks(), cut.work_per_block(n_rows * runs.n_modules()));
  exec.team.run(n_chunks, [&](std::uint32_t chunk) {
    cut.for_units(chunk, n_chunks, [&](std::size_t i, std::size_t begin, std::size_t end) {
      tasks[i].conv->forward_range(*windows[i], begin, end, tasks[i].y);
    });
  });
}

/// The windows of one row, which a thread makes for itself in memory of its own.
class RowWindows {
 public:
  RowWindows(Exec& exec, const RowOfRuns& runs, std::span<const ConvolutionTask> tasks) : runs_(&runs) {
    const std::size_t n = runs.n_modules();
    f32_windows_ = exec.ws.take<const float*>(n);
    q8_windows_ = exec.ws.take<QuantizedRow>(n);
    bool any_f32 = false, any_q8 = false;
    std::size_t bytes = 0;
    for (const ConvolutionTask& task : tasks) {
      const WeightView& w = task.conv->weight();
      (is_quantized(w.dtype) ? any_q8 : any_f32) = true;
      const PreparedRows windows = is_quantized(w.dtype) ? PreparedRows::of(q8_windows_, n, w.cols)
                                                         : PreparedRows::of(f32_windows_, n, w.cols);
      bytes = std::max(bytes, windows.packs_bytes(task.conv->packs()));
    }
    packs_ = exec.ws.take<std::byte>(bytes);
    if (any_f32) f32_ = exec.ws.take<float>(runs.width());
    if (!any_q8) return;
    q8_ = exec.ws.take<std::int8_t>(runs.width() + kPackColumns);  // kernels may read whole steps
    sums_ = exec.ws.take<std::int32_t>(runs.n_runs());
  }

  /// Those that `conv` reads; they replace the ones before.
  const PreparedRows& of(const LocallyConvDense& conv) noexcept {
    if (made_for_ && same_windows(conv, *made_for_)) return *windows_;
    const DType dtype = conv.weight().dtype;
    windows_ = (is_quantized(dtype) ? q8_windows(conv) : f32_windows(conv))
                   .packed_into(conv.kernels(), conv.packs(), packs_);
    made_for_ = &conv;
    return *windows_;
  }

 private:
  PreparedRows f32_windows(const LocallyConvDense& conv) noexcept {
    if (!have_f32_) runs_->copy(0, f32_);
    have_f32_ = true;
    const float* const first = f32_ + runs_->first_run(conv) * runs_->run();
    for (std::size_t i = 0; i < runs_->n_modules(); ++i) f32_windows_[i] = first + i * runs_->run();
    return PreparedRows::of(f32_windows_, runs_->n_modules(), conv.weight().cols);
  }

  PreparedRows q8_windows(const LocallyConvDense& conv) noexcept {
    if (!have_q8_) scale_ = runs_->quantize(conv.kernels(), 0, q8_, sums_);
    have_q8_ = true;
    for (std::size_t i = 0; i < runs_->n_modules(); ++i) {
      const std::size_t run = runs_->first_run(conv) + i;
      q8_windows_[i] = {q8_ + run * runs_->run(), scale_,
                        std::accumulate(sums_ + run, sums_ + run + conv.kernel_size(), 0)};
    }
    return PreparedRows::of(q8_windows_, runs_->n_modules(), conv.weight().cols);
  }

  const RowOfRuns* runs_;
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
  const RowOfRuns runs(seen, tasks);
  const UnitCut cut(tasks);
  const std::uint32_t n_chunks = exec.one_chunk_each(cut.n_blocks(), cut.work_per_block(runs.n_modules()));
  auto* const windows = exec.ws.take<RowWindows>(n_chunks);
  for (std::uint32_t chunk = 0; chunk < n_chunks; ++chunk)
    new (windows + chunk) RowWindows(exec, runs, tasks);
  exec.team.run(n_chunks, [&](std::uint32_t chunk) {
    cut.for_units(chunk, n_chunks, [&](std::size_t i, std::size_t begin, std::size_t end) {
      tasks[i].conv->forward_range(windows[chunk].of(*tasks[i].conv), begin, end, tasks[i].y);
    });
  });
}

}  // namespace

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
