// SPDX-License-Identifier: Apache-2.0
#include "sparse/factored_dense.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "engine/error.h"
#include "engine/linear.h"
#include "engine/prefetch.h"

namespace terrace {
namespace {

constexpr std::size_t kPanel = FactoredDense::kPanel;

/// Gated rows that meet a panel of the projection at once: 128 rows of a panel are 256 KiB of f32, a part of
/// any L2.
constexpr std::size_t kMaxGatedRows = 128;

/// Rows of the projection per kernel call: bounds the partial sums on the stack (16 KiB).
constexpr std::size_t kRowBlock = 32;

/// Of one token: fewer modules than this at once leave the kernel's register blocks half empty.
constexpr std::size_t kModulesPerChunk = 4;

/// A projection up to here fits the L2 cache of one core beside everything else.
constexpr std::size_t kPrefetchedBytes = std::size_t{1} << 19;

/// A projection up to here may be read by every thread: it stays in the last-level cache meanwhile.
constexpr std::size_t kSharedBytes = std::size_t{4} << 20;

static_assert(kPanel <= PreparedRows::kMostProduct);

/// The gated inputs x * gate_s of a few tokens, row t * S + s, panel by panel.
class GatedRows {
 public:
  GatedRows(Exec& exec, const DenseKernels& kernels, DType dtype, const float* gate, std::size_t n_modules,
            ConstRows x)
      : kernels_(kernels),
        gate_(gate),
        n_modules_(n_modules),
        x_(x),
        n_panels_((x.width + kPanel - 1) / kPanel),
        panels_(exec.ws.take<PreparedRows>(n_panels_)) {
    for (std::size_t p = 0; p < n_panels_; ++p) {
      new (panels_ + p) PreparedRows(PreparedRows::reserve(exec, kernels, dtype, size(), columns(p)));
    }
  }

  /// Fills the rows of modules [begin, end), on the calling thread. A module's gate is read once for all
  /// tokens.
  void fill(std::size_t begin, std::size_t end) const noexcept {
    for (std::size_t s = begin; s < end; ++s) {
      for (std::size_t p = 0; p < n_panels_; ++p) {
        if (s + 1 < end) prefetch_bytes(gate_ + (s + 1) * x_.width + p * kPanel, columns(p) * sizeof(float));
        for (std::size_t t = 0; t < x_.n; ++t) {
          panels_[p].put_product(kernels_, t * n_modules_ + s, x_.row(t) + p * kPanel,
                                 gate_ + s * x_.width + p * kPanel);
        }
      }
    }
  }
  /// Packs rows [begin, end), whole packs, on the calling thread.
  void pack(std::size_t begin, std::size_t end) const noexcept {
    for (std::size_t p = 0; p < n_panels_; ++p) panels_[p].pack(kernels_, begin, end);
  }

  std::size_t size() const noexcept { return x_.n * n_modules_; }
  std::size_t n_panels() const noexcept { return n_panels_; }
  bool packed() const noexcept { return panels_[0].n_packed() > 0; }

  /// y[i * w.rows + r] = <row r of w, gated row first + i> over the columns of panel p, i < n.
  void dot(const WeightView& w, std::size_t p, std::size_t first, std::size_t n, float* y) const noexcept {
    dot_rows(kernels_, w.slice_columns(p * kPanel, columns(p)), 0, w.rows, panels_[p].slice(first, n), y,
             w.rows);
  }

 private:
  std::size_t columns(std::size_t p) const noexcept { return std::min(kPanel, x_.width - p * kPanel); }

  const DenseKernels& kernels_;
  const float* gate_;
  std::size_t n_modules_;
  ConstRows x_;
  std::size_t n_panels_;
  PreparedRows* panels_;
};

}  // namespace

FactoredDense::FactoredDense(const DenseKernels& kernels, const float* gate, const WeightView& proj,
                             const float* bias, std::size_t n_modules)
    : kernels_(&kernels), gate_(gate), proj_(proj), bias_(bias), n_modules_(n_modules) {
  TERRACE_CHECK(
      gate && proj && n_modules > 0 && proj.rows > 0 && proj.cols > 0, kBadArgument,
      fmt::format("multiplicative layer: expected a gate, a projection and n_modules > 0, found {} modules "
                  "and a projection [{}, {}]",
                  n_modules, proj.rows, proj.cols));
}

std::size_t FactoredDense::bytes_per_token() const noexcept {
  return n_modules_ * proj_.cols * sizeof(float) + proj_.bytes() + (bias_ ? d_out() * sizeof(float) : 0);
}

void FactoredDense::forward(Exec& exec, ConstRows x, Rows y) const {
  const std::size_t batch = std::max<std::size_t>(1, kMaxGatedRows / n_modules_);
  for (std::size_t begin = 0; begin < x.n; begin += batch) {
    const std::size_t n = std::min(batch, x.n - begin);
    forward_batch(exec, x.slice(begin, n), y.slice(begin, n));
  }
}

void FactoredDense::forward_batch(Exec& exec, ConstRows x, Rows y) const {
  const Workspace::Scope scope(exec.ws);
  const GatedRows gated(exec, *kernels_, proj_.dtype, gate_, n_modules_, x);
  const std::size_t d_module = proj_.rows;

  // Rows [row, row + n_rows) of the projection for gated rows [begin, end), over the columns of panel p.
  const auto add_panel = [&](std::size_t p, std::size_t row, std::size_t n_rows, std::size_t begin,
                             std::size_t end) {
    alignas(64) float partial[kRowBlock * kMaxGatedRows];
    const WeightView w = proj_.slice_rows(row, n_rows);
    for (std::size_t first = begin; first < end; first += kMaxGatedRows) {
      const std::size_t n = std::min(kMaxGatedRows, end - first);
      gated.dot(w, p, first, n, partial);
      for (std::size_t i = 0; i < n; ++i) {
        const std::size_t module = (first + i) % n_modules_;
        const std::size_t column = module * d_module + row;
        float* const out = y.row((first + i) / n_modules_) + column;
        if (p == 0) {
          std::copy_n(partial + i * n_rows, n_rows, out);
        } else {
          kernels_->add(out, partial + i * n_rows, n_rows);
        }
        if (bias_ && p + 1 == gated.n_panels()) kernels_->add(out, bias_ + column, n_rows);
      }
    }
  };
  const auto add_panels = [&](std::size_t row_begin, std::size_t row_end, std::size_t begin,
                              std::size_t end) {
    for (std::size_t p = 0; p < gated.n_panels(); ++p) {
      for (std::size_t r = row_begin; r < row_end; r += kRowBlock)
        add_panel(p, r, std::min(kRowBlock, row_end - r), begin, end);
    }
  };

  // One token that is not packed: a chunk gates a few modules and takes them through the whole projection,
  // without a barrier in between. The projection is small; the threads after the first find it in the shared
  // cache.
  const std::size_t modules_per_chunk = n_modules_ / exec.team.size();
  if (x.n == 1 && !gated.packed() && modules_per_chunk >= kModulesPerChunk && proj_.bytes() <= kSharedBytes) {
    exec.for_range(n_modules_, kModulesPerChunk, d_in() * (sizeof(float) + d_module / 8),
                   [&](std::size_t begin, std::size_t end) {
                     gated.fill(begin, end);
                     add_panels(0, d_module, begin, end);
                   });
    return;
  }
  exec.for_range(
      n_modules_, kModulesPerChunk, x.n * x.width * sizeof(float), [&](std::size_t begin, std::size_t end) {
        gated.fill(begin, end);
        if (proj_.bytes() <= kPrefetchedBytes) {  // what the next phase reads
          const WeightView rows =
              proj_.slice_rows(d_module * begin / n_modules_, d_module * (end - begin) / n_modules_);
          prefetch_bytes(rows.row(0), rows.bytes());
        }
      });
  // Whole packs: two threads that write the same lines of one would wait for each other.
  if (gated.packed()) {
    exec.for_range(gated.size(), kPackRows, x.width * sizeof(float),
                   [&](std::size_t begin, std::size_t end) { gated.pack(begin, end); });
  }
  const std::size_t multiply_adds =
      gated.size() * proj_.cols / 8;  // about eight of them in the time of one byte
  exec.for_range(d_module, gated.packed() ? kPackRows : 8,
                 std::max(row_bytes(proj_.dtype, proj_.cols), multiply_adds),
                 [&](std::size_t begin, std::size_t end) { add_panels(begin, end, 0, gated.size()); });
}

}  // namespace terrace
