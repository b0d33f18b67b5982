// SPDX-License-Identifier: Apache-2.0
#include "sparse/module_conv.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "engine/error.h"

namespace terrace {

ModuleHistory::ModuleHistory(Exec& exec, ConstRows x, std::span<float> tail, std::size_t n_modules,
                             std::size_t n_steps, std::size_t reach)
    : n_modules_(n_modules), reach_(reach), run_(n_steps * (x.width / n_modules)) {
  const std::size_t n_channels = x.width / n_modules;
  const std::size_t n_before = n_steps - 1;
  TERRACE_DCHECK(tail.size() == n_before * x.width);
  // The input row `back` rows before row t, which may be one of an earlier call.
  const auto input = [&](std::size_t t, std::size_t back) {
    return t >= back ? x.row(t - back) : tail.data() + (n_before + t - back) * x.width;
  };

  const std::size_t width = (n_modules + 2 * reach) * run_;
  float* const rows = exec.ws.take<float>(x.n * width);
  exec.for_range(x.n, 1, width * sizeof(float), [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) {
      float* const row = rows + t * width;
      std::fill_n(row, reach * run_, 0.0F);
      std::fill_n(row + width - reach * run_, reach * run_, 0.0F);
      for (std::size_t i = 0; i < n_steps; ++i) {
        const float* source = input(t, n_before - i);
        float* target = row + reach * run_ + i * n_channels;
        for (std::size_t s = 0; s < n_modules; ++s, source += n_channels, target += run_) {
          std::copy_n(source, n_channels, target);
        }
      }
    }
  });
  rows_ = {rows, x.n, width, width};

  // Oldest row first: a row that moves within the tail moves towards its front.
  for (std::size_t i = 0; i < n_before && x.n > 0; ++i) {
    std::copy_n(input(x.n - 1, n_before - 1 - i), x.width, tail.data() + i * x.width);
  }
}

PreparedRows ModuleHistory::windows(Exec& exec, const PreparedRows& prepared, std::size_t kernel_size) const {
  TERRACE_DCHECK(kernel_size % 2 == 1 && kernel_size <= 2 * reach_ + 1);
  return prepared.windows(exec, run_, reach_ - kernel_size / 2, n_modules_, kernel_size);
}

LocallyConvDense::LocallyConvDense(const DenseKernels& kernels, const WeightView& weight, const float* bias,
                                   std::size_t n_modules, std::size_t kernel_size, std::size_t n_steps)
    : kernels_(&kernels),
      weight_(weight),
      bias_(bias),
      n_modules_(n_modules),
      kernel_size_(n_modules == 1 ? 1 : kernel_size),
      n_steps_(n_modules == 1 ? 1 : n_steps) {
  TERRACE_CHECK(
      weight && n_modules > 0 && kernel_size_ % 2 == 1 && n_steps_ > 0 &&
          weight.cols % (kernel_size_ * n_steps_) == 0,
      kBadArgument,
      fmt::format("module convolution: a weight [{}, {}] does not fit {} modules and a kernel of {} modules "
                  "(odd) x {} steps",
                  weight.rows, weight.cols, n_modules, kernel_size, n_steps));
}

void LocallyConvDense::forward(Exec& exec, ConstRows x, std::span<float> tail, Rows y) const {
  const Workspace::Scope scope(exec.ws);
  const ModuleHistory history(exec, x, tail, n_modules_, n_steps_, kernel_size_ / 2);
  PreparedRows windows =
      history.windows(exec, history.prepare(exec, *kernels_, weight_.dtype), kernel_size_);
  const ConvolutionTask task{this, &windows, y};
  run_convolutions(exec, {&task, 1});
}

void LocallyConvDense::forward_range(const PreparedRows& windows, std::size_t begin, std::size_t end,
                                     Rows y) const noexcept {
  const std::size_t width = d_out();
  TERRACE_DCHECK(windows.size() == y.n * n_modules_);
  if (y.stride == width || y.n == 1) {
    dot_rows(*kernels_, weight_, begin, end, windows, y.data, n_units());
  } else {
    for (std::size_t t = 0; t < y.n; ++t) {
      dot_rows(*kernels_, weight_, begin, end, windows.slice(t * n_modules_, n_modules_), y.row(t),
               n_units());
    }
  }
  if (!bias_) return;
  for (std::size_t t = 0; t < y.n; ++t) {
    for (std::size_t s = 0; s < n_modules_; ++s) {
      kernels_->add(y.row(t) + s * n_units() + begin, bias_ + begin, end - begin);
    }
  }
}

namespace {

/// Units of a kernel call: whole rows of packs.
constexpr std::size_t kUnitBlock = kPackRows;

constexpr std::size_t ceil_div(std::size_t a, std::size_t b) noexcept { return (a + b - 1) / b; }

/// The unit blocks of all tasks, one after the other, cut into chunks of about the same number of columns.
class ConvolutionCut {
 public:
  explicit ConvolutionCut(std::span<const ConvolutionTask> tasks) noexcept : tasks_(tasks) {
    for (const ConvolutionTask& task : tasks) {
      n_blocks_ += blocks_of(task);
      columns_ += blocks_of(task) * columns_of(task);
    }
  }

  std::size_t n_blocks() const noexcept { return n_blocks_; }
  std::size_t columns() const noexcept { return columns_; }

  /// Calls fn(task, first unit, end) for the units of chunk `chunk` of `n_chunks`.
  template <class F>
  void for_units(std::size_t chunk, std::size_t n_chunks, F&& fn) const {
    std::size_t before = 0;  // columns of the tasks before
    for (const ConvolutionTask& task : tasks_) {
      // The first block that begins at or after a chunk's share of the columns.
      const auto first_block = [&](std::size_t of_chunk) {
        const std::size_t share = of_chunk * columns_;
        if (share <= before * n_chunks) return std::size_t{0};
        return std::min(blocks_of(task), ceil_div(share - before * n_chunks, columns_of(task) * n_chunks));
      };
      const std::size_t begin = first_block(chunk), end = first_block(chunk + 1);
      if (begin < end) fn(task, begin * kUnitBlock, std::min(task.conv->n_units(), end * kUnitBlock));
      before += blocks_of(task) * columns_of(task);
    }
  }

 private:
  static std::size_t blocks_of(const ConvolutionTask& task) noexcept {
    return ceil_div(task.conv->n_units(), kUnitBlock);
  }
  static std::size_t columns_of(const ConvolutionTask& task) noexcept { return task.conv->weight().cols; }

  std::span<const ConvolutionTask> tasks_;
  std::size_t n_blocks_ = 0;
  std::size_t columns_ = 0;
};

}  // namespace

void run_convolutions(Exec& exec, std::span<const ConvolutionTask> tasks) {
  const Workspace::Scope scope(exec.ws);
  const ConvolutionCut cut(tasks);
  const std::size_t n_windows = tasks.front().windows->size();
  const bool each_packs = n_windows <= kPackRows;
  std::size_t own_bytes = 0;  // of the packs of one task
  for (const ConvolutionTask& task : tasks) {
    const DType dtype = task.conv->weight().dtype;
    own_bytes = std::max(own_bytes, task.windows->packs_bytes(task.conv->kernels(), dtype));
    if (!each_packs && task.windows->n_packed() == 0) task.windows->pack(exec, task.conv->kernels(), dtype);
  }
  // Four bytes a column, or a multiply-add per window: about eight of them in the time of a byte.
  const std::size_t work_per_block =
      kUnitBlock * cut.columns() / cut.n_blocks() * std::max<std::size_t>(4, n_windows / 8);
  const std::uint32_t n_chunks = each_packs
                                     ? exec.one_chunk_each(cut.n_blocks(), work_per_block)
                                     : exec.chunks_of(cut.n_blocks(), work_per_block);
  std::byte* const packs = each_packs ? exec.ws.take<std::byte>(n_chunks * own_bytes) : nullptr;
  exec.team.run(n_chunks, [&](std::uint32_t chunk) {
    const PreparedRows* packed = nullptr;  // whose copy `own` is
    std::optional<PreparedRows> own;
    cut.for_units(chunk, n_chunks, [&](const ConvolutionTask& task, std::size_t begin, std::size_t end) {
      if (each_packs && packed != task.windows) {
        packed = task.windows;
        own = packed->packed_into(task.conv->kernels(), task.conv->weight().dtype, packs + chunk * own_bytes);
      }
      task.conv->forward_range(each_packs ? *own : *task.windows, begin, end, task.y);
    });
  });
}

}  // namespace terrace
