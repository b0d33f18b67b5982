// SPDX-License-Identifier: Apache-2.0
#include "sparse/module_conv.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>

#include "engine/error.h"

namespace terrace {
namespace {

/// Convolutions of one call: those of q, k and v.
constexpr std::size_t kMostConvolutions = 3;

/// Of one row: with fewer modules than this for a thread the weights, which then every thread reads, cost
/// more than the barriers that are saved.
constexpr std::size_t kModulesPerThread = 4;

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
  std::size_t n_units = 0, columns = 0;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const LocallyConvDense& conv = *tasks[i].conv;
    n_units += conv.n_units();
    columns = std::max(columns, conv.weight().cols);
    if (i > 0 && same_windows(conv, *tasks[i - 1].conv)) {
      windows[i] = windows[i - 1];
      continue;
    }
    const DType dtype = conv.weight().dtype;
    windows[i] = PreparedRows::unpacked(exec, conv.kernels(), dtype, rows)
                     .windows(exec, run, reach - conv.kernel_size() / 2, n_modules, conv.kernel_size());
    windows[i]->pack(exec, conv.kernels(), dtype);
  }
  // The units of all tasks, one after the other.
  exec.for_range(n_units, kPackRows, columns * std::max<std::size_t>(4, n_rows * n_modules / 8),
                 [&](std::size_t begin, std::size_t end) {
                   std::size_t before = 0;
                   for (std::size_t i = 0; i < tasks.size(); ++i) {
                     const LocallyConvDense& conv = *tasks[i].conv;
                     const std::size_t b = std::max(begin, before),
                                       e = std::min(end, before + conv.n_units());
                     if (b < e) conv.forward_range(*windows[i], 0, b - before, e - before, tasks[i].y);
                     before += conv.n_units();
                   }
                 });
}

/// What a thread needs to convolve some modules of one row. Pointers into the workspace.
struct ModuleScratch {
  float* runs;                ///< [modules + 2 * reach, run] ...
  std::int8_t* q8;            ///< ... or quantised
  std::int32_t* sums;         ///< of quantised runs
  const float** f32_windows;  ///< [modules]
  QuantizedRow* q8_windows;   ///< [modules]
  std::byte* packs;
};

/// Modules [begin, end) of one row through all convolutions.
class ModuleRange {
 public:
  ModuleRange(const SeenRows& seen, std::span<const ConvolutionTask> tasks, std::size_t begin,
              std::size_t end, const ModuleScratch& scratch) noexcept
      : seen_(seen),
        tasks_(tasks),
        begin_(begin),
        n_(end - begin),
        n_modules_(tasks.front().conv->n_modules()),
        n_channels_(seen.width() / n_modules_),
        reach_(reach_of(tasks)),
        scratch_(scratch) {}

  void run() noexcept {
    std::optional<PreparedRows> windows;
    bool have_f32 = false, have_q8 = false;
    for (std::size_t i = 0; i < tasks_.size(); ++i) {
      const LocallyConvDense& conv = *tasks_[i].conv;
      const DType dtype = conv.weight().dtype;
      if (i == 0 || !same_windows(conv, *tasks_[i - 1].conv)) {
        bool& have = is_quantized(dtype) ? have_q8 : have_f32;
        if (!have) is_quantized(dtype) ? quantize_runs(conv.kernels()) : copy_runs();
        have = true;
        windows = windows_of(conv).packed_into(conv.kernels(), dtype, scratch_.packs);
      }
      conv.forward_range(*windows, begin_, 0, conv.n_units(), tasks_[i].y);
    }
  }

 private:
  /// fn(index, channels or null) for every module seen and every step: index counts modules, then steps.
  template <class F>
  void for_pieces(F&& fn) const noexcept {
    std::size_t index = 0;
    for (std::size_t s = begin_; s < begin_ + n_ + 2 * reach_; ++s) {
      const bool outside = s < reach_ || s >= n_modules_ + reach_;
      for (std::size_t i = 0; i < seen_.n_steps(); ++i) {
        fn(index++, outside ? nullptr : seen_.at(0, i) + (s - reach_) * n_channels_);
      }
    }
  }

  void copy_runs() noexcept {
    for_pieces([&](std::size_t index, const float* channels) {
      float* const to = scratch_.runs + index * n_channels_;
      channels ? std::copy_n(channels, n_channels_, to) : std::fill_n(to, n_channels_, 0.0F);
    });
  }

  /// With the scale of the whole row.
  void quantize_runs(const DenseKernels& kernels) noexcept {
    float largest = 0.0F;
    for (std::size_t i = 0; i < seen_.n_steps(); ++i) {
      largest = std::max(largest, kernels.largest_magnitude(seen_.at(0, i), seen_.width()));
    }
    scale_ = scale_of(largest);
    std::fill_n(scratch_.sums, n_ + 2 * reach_, 0);
    for_pieces([&](std::size_t index, const float* channels) {
      // Padding behind a piece is overwritten by the next one.
      std::int8_t* const to = scratch_.q8 + index * n_channels_;
      if (!channels) return static_cast<void>(std::fill_n(to, n_channels_, std::int8_t{0}));
      scratch_.sums[index / seen_.n_steps()] += kernels.quantize_by(channels, n_channels_, scale_, to);
    });
  }

  PreparedRows windows_of(const LocallyConvDense& conv) noexcept {
    const std::size_t run = seen_.n_steps() * n_channels_;
    const std::size_t first = reach_ - conv.kernel_size() / 2;
    if (!is_quantized(conv.weight().dtype)) {
      for (std::size_t i = 0; i < n_; ++i) scratch_.f32_windows[i] = scratch_.runs + (first + i) * run;
      return PreparedRows::of(scratch_.f32_windows, n_, conv.weight().cols);
    }
    for (std::size_t i = 0; i < n_; ++i) {
      const std::int32_t* const sums = scratch_.sums + first + i;
      scratch_.q8_windows[i] = {scratch_.q8 + (first + i) * run, scale_,
                                std::accumulate(sums, sums + conv.kernel_size(), 0)};
    }
    return PreparedRows::of(scratch_.q8_windows, n_, conv.weight().cols);
  }

  const SeenRows& seen_;
  std::span<const ConvolutionTask> tasks_;
  std::size_t begin_, n_, n_modules_, n_channels_, reach_;
  ModuleScratch scratch_;
  float scale_ = 0;  // of quantised runs
};

void convolve_row(Exec& exec, const SeenRows& seen, std::span<const ConvolutionTask> tasks) {
  const std::size_t n_modules = tasks.front().conv->n_modules();
  const std::size_t n_channels = seen.width() / n_modules;
  std::size_t work_per_module = 0, columns = 0;
  for (const ConvolutionTask& task : tasks) {
    const WeightView& w = task.conv->weight();
    work_per_module += w.rows * w.cols / 8;  // about eight multiply-adds in the time of a byte
    columns = std::max(columns, w.cols);
  }
  const std::uint32_t n_chunks =
      exec.one_chunk_each(n_modules / kModulesPerThread, kModulesPerThread * work_per_module);
  const std::size_t n = (n_modules + n_chunks - 1) / n_chunks;  // modules of a chunk
  const std::size_t n_runs = n + 2 * reach_of(tasks);
  auto* const scratch = exec.ws.take<ModuleScratch>(n_chunks);
  for (std::uint32_t chunk = 0; chunk < n_chunks; ++chunk) {
    const std::size_t n_values = n_runs * seen.n_steps() * n_channels;
    scratch[chunk] = {
        .runs = exec.ws.take<float>(n_values),
        .q8 = exec.ws.take<std::int8_t>(n_values + kPackColumns),
        .sums = exec.ws.take<std::int32_t>(n_runs),
        .f32_windows = exec.ws.take<const float*>(n),
        .q8_windows = exec.ws.take<QuantizedRow>(n),
        .packs = exec.ws.take<std::byte>((n + kPackRows - 1) / kPackRows * pack_bytes(columns))};
  }
  exec.team.run(n_chunks, [&](std::uint32_t chunk) {
    ModuleRange(seen, tasks, n_modules * chunk / n_chunks, n_modules * (chunk + 1) / n_chunks, scratch[chunk])
        .run();
  });
}

}  // namespace

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
  const ConvolutionTask task{this, y};
  convolve(exec, x, tail, {&task, 1});
}

void LocallyConvDense::forward_range(const PreparedRows& windows, std::size_t first, std::size_t begin,
                                     std::size_t end, Rows y) const noexcept {
  const std::size_t n = windows.size() / y.n;  // modules
  TERRACE_DCHECK(n == n_modules_ || y.n == 1);
  if (y.stride == d_out() || y.n == 1) {
    dot_rows(*kernels_, weight_, begin, end, windows, y.data + first * n_units(), n_units());
  } else {
    for (std::size_t t = 0; t < y.n; ++t) {
      dot_rows(*kernels_, weight_, begin, end, windows.slice(t * n, n), y.row(t), n_units());
    }
  }
  if (!bias_) return;
  for (std::size_t t = 0; t < y.n; ++t) {
    for (std::size_t s = first; s < first + n; ++s) {
      kernels_->add(y.row(t) + s * n_units() + begin, bias_ + begin, end - begin);
    }
  }
}

void convolve(Exec& exec, ConstRows x, std::span<float> tail, std::span<const ConvolutionTask> tasks) {
  TERRACE_DCHECK(tasks.size() <= kMostConvolutions);
  const Workspace::Scope scope(exec.ws);
  const SeenRows seen(x, tail, *tasks.front().conv);
  if (x.n == 1 && tasks.front().conv->n_modules() / exec.team.size() >= kModulesPerThread) {
    convolve_row(exec, seen, tasks);
  } else {
    convolve_rows(exec, seen, x.n, tasks);
  }
  seen.move_tail();
}

}  // namespace terrace
