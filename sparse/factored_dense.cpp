// SPDX-License-Identifier: Apache-2.0
#include "sparse/factored_dense.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <new>

#include "engine/ceil_div.h"
#include "engine/error.h"
#include "engine/linear.h"
#include "engine/prefetch.h"

namespace terrace {
namespace {

constexpr std::size_t kPanel = FactoredDense::kPanel;

/// Gated rows that meet a panel of the projection at once: 128 rows of a panel are 256 KiB of f32, a part of
/// any L2.
constexpr std::size_t kMaxGatedRows = 128;

/// Rows of the projection per kernel call: bounds the partial sums on the stack (32 KiB).
constexpr std::size_t kRowBlock = 64;

static_assert(kPanel <= kMostProduct);

}  // namespace

/// The gated inputs x * gate_s of a few tokens, row t * S + s, panel by panel.
class FactoredDense::GatedRows {
 public:
  GatedRows(Exec& exec, const DenseKernels& kernels, DType dtype, const WeightView& gate, ConstRows x)
      : kernels_(kernels),
        gate_(gate),
        x_(x),
        n_panels_(ceil_div(x.width, kPanel)),
        panels_(exec.ws.take<PreparedRows>(n_panels_)),
        words_(exec.ws.take<Int16Row>(x.n * n_panels_)) {
    for (std::size_t p = 0; p < n_panels_; ++p) {
      new (panels_ + p) PreparedRows(PreparedRows::reserve(exec, dtype, size(), columns(p)));
    }
    std::uninitialized_fill_n(words_, x.n * n_panels_, Int16Row{});
    if (PreparedRows::multiplies_words(gate.dtype, dtype)) make_words(exec);
  }

  /// Fills the rows of modules [begin, end), on the calling thread. A module's gate is read once for all
  /// tokens.
  void fill(std::size_t begin, std::size_t end) const noexcept {
    for (std::size_t s = begin; s < end; ++s) {
      for (std::size_t p = 0; p < n_panels_; ++p) {
        const WeightView gate = gate_.slice_columns(p * kPanel, columns(p));
        if (s + 1 < n_modules()) prefetch_bytes(gate.row(s + 1), row_bytes(gate.dtype, gate.cols));
        for (std::size_t t = 0; t < x_.n; ++t) {
          panels_[p].put_product(kernels_, t * n_modules() + s, x_.row(t) + p * kPanel,
                                 words_[t * n_panels_ + p], gate, s);
        }
      }
    }
  }

  /// All of them, in phases of their own.
  void fill_and_pack(Exec& exec, Packs packs) const {
    exec.for_range(n_modules(), kModulesPerThread, x_.n * x_.width * sizeof(float),
                   [this](std::size_t begin, std::size_t end) { fill(begin, end); });
    for (std::size_t p = 0; p < n_panels_; ++p) panels_[p].pack(exec, kernels_, packs);
  }

  std::size_t n_modules() const noexcept { return gate_.rows; }
  std::size_t size() const noexcept { return x_.n * n_modules(); }
  std::size_t n_panels() const noexcept { return n_panels_; }
  /// The rows over the columns from p * kPanel on.
  PreparedRows& panel(std::size_t p) const noexcept { return panels_[p]; }

 private:
  std::size_t columns(std::size_t p) const noexcept { return std::min(kPanel, x_.width - p * kPanel); }

  void make_words(Exec& exec) const {
    const std::size_t stride = n_panels_ * kPanel;
    auto* const to = exec.ws.take<std::int16_t>(x_.n * stride);
    exec.for_range(x_.n, 1, x_.width * sizeof(float), [&](std::size_t begin, std::size_t end) {
      for (std::size_t t = begin; t < end; ++t) {
        for (std::size_t p = 0; p < n_panels_; ++p) {
          words_[t * n_panels_ + p] =
              int16_row(kernels_, x_.row(t) + p * kPanel, columns(p), to + t * stride + p * kPanel);
        }
      }
    });
  }

  const DenseKernels& kernels_;
  WeightView gate_;
  ConstRows x_;
  std::size_t n_panels_;
  PreparedRows* panels_;
  Int16Row* words_;  // x in 16 bits [tokens, panels]
};

FactoredDense::FactoredDense(const DenseKernels& kernels, const WeightView& gate, const WeightView& proj,
                             const float* bias)
    : kernels_(&kernels),
      packs_(module_packs_for(kernels, proj.dtype, gate.rows)),
      gate_(gate),
      proj_(proj),
      bias_(bias) {
  TERRACE_CHECK(gate && proj && gate.rows > 0 && proj.rows > 0 && proj.cols > 0 && gate.cols == proj.cols,
                kBadArgument,
                fmt::format("multiplicative layer: expected a gate [S, d] and a projection [M, d], found "
                            "[{}, {}] and [{}, {}]",
                            gate.rows, gate.cols, proj.rows, proj.cols));
}

std::size_t FactoredDense::bytes_per_token() const noexcept {
  return gate_.bytes() + proj_.bytes() + (bias_ ? d_out() * sizeof(float) : 0);
}

void FactoredDense::forward(Exec& exec, ConstRows x, Rows y) const {
  // Outputs of a batch lie behind each other.
  const std::size_t batch = y.stride == d_out() ? std::max<std::size_t>(1, kMaxGatedRows / n_modules()) : 1;
  for (std::size_t begin = 0; begin < x.n; begin += batch) {
    const std::size_t n = std::min(batch, x.n - begin);
    forward_batch(exec, x.slice(begin, n), y.slice(begin, n));
  }
}

void FactoredDense::forward_batch(Exec& exec, ConstRows x, Rows y) const {
  TERRACE_DCHECK(y.n == 1 || y.stride == d_out());
  const Workspace::Scope scope(exec.ws);
  const GatedRows gated(exec, *kernels_, proj_.dtype, gate_, x);
  if (x.n == 1 && goes_by_modules(n_modules(), proj_.bytes(), exec.team.size())) {
    forward_by_modules(exec, gated, y);
    return;
  }
  gated.fill_and_pack(exec, packs_);
  exec.for_range(proj_.rows, gated.panel(0).n_packed() > 0 ? kPackRows : 8,
                 dot_work(proj_.dtype, d_in(), gated.size(), packs_),
                 [&](std::size_t begin, std::size_t end) {
                   for (std::size_t p = 0; p < gated.n_panels(); ++p)
                     add_panel(p, gated.panel(p), 0, begin, end - begin, y.data + begin, proj_.rows);
                 });
}

Largest FactoredDense::largest(Exec& exec, ConstRows x) const {
  TERRACE_DCHECK(x.n == 1);
  const Workspace::Scope scope(exec.ws);
  const GatedRows gated(exec, *kernels_, proj_.dtype, gate_, x);
  gated.fill_and_pack(exec, packs_);
  const std::size_t n_blocks = ceil_div(proj_.rows, kRowBlock);
  const std::size_t work = kRowBlock * dot_work(proj_.dtype, d_in(), n_modules(), packs_);
  return exec.largest_of_blocks(n_blocks, work, [&](std::size_t block, Largest& largest) {
    alignas(kCacheLine) float y[kRowBlock * kMaxGatedRows];
    const std::size_t row = block * kRowBlock;
    const std::size_t n = std::min(kRowBlock, proj_.rows - row);
    for (std::size_t s = 0; s < n_modules(); s += kMaxGatedRows) {
      const std::size_t end = std::min(s + kMaxGatedRows, n_modules());
      for (std::size_t p = 0; p < gated.n_panels(); ++p) {
        add_panel(p, gated.panel(p).slice(s, end - s), s, row, n, y, n);
      }
      for (std::size_t i = s; i < end; ++i) largest.take(y + (i - s) * n, n, i * proj_.rows + row);
    }
  });
}

std::uint32_t FactoredDense::chunks_by_modules(std::size_t n_threads) const noexcept {
  const std::size_t work = kModulesPerThread * work_per_module(d_in(), proj_.rows, packs_);
  return Exec::one_chunk_each(n_modules() / kModulesPerThread, work, n_threads);
}

bool FactoredDense::works_alone(std::size_t n_threads) const noexcept {
  return n_threads == 1 ||
         (goes_by_modules(n_modules(), proj_.bytes(), n_threads) && chunks_by_modules(n_threads) <= 1);
}

void FactoredDense::forward_by_modules(Exec& exec, const GatedRows& gated, Rows y) const {
  const std::uint32_t n_chunks = chunks_by_modules(exec.team.size());
  const std::size_t bytes = gated.panel(0).packs_bytes(packs_);
  auto* const packs = exec.ws.take<std::byte>(n_chunks * bytes);
  const std::size_t n_blocks = ceil_div(proj_.rows, kRowBlock);
  exec.team.run(n_chunks, [&](std::uint32_t chunk) {
    const std::size_t begin = n_modules() * chunk / n_chunks;
    const std::size_t n = n_modules() * (chunk + 1) / n_chunks - begin;
    gated.fill(begin, begin + n);
    for (std::size_t p = 0; p < gated.n_panels(); ++p) {
      const PreparedRows rows =
          gated.panel(p).slice(begin, n).packed_into(*kernels_, packs_, packs + chunk * bytes);
      for (std::size_t block = 0; block < n_blocks; ++block) {
        const std::size_t row = block * kRowBlock;
        add_panel(p, rows, begin, row, std::min(kRowBlock, proj_.rows - row),
                  y.data + begin * proj_.rows + row, proj_.rows);
      }
    }
  });
}

void FactoredDense::add_panel(std::size_t p, const PreparedRows& gated, std::size_t first, std::size_t row,
                              std::size_t n_rows, float* out, std::size_t out_stride) const noexcept {
  alignas(kCacheLine) float partial[kRowBlock * kMaxGatedRows];
  const std::size_t last_panel = ceil_div(d_in(), kPanel) - 1;
  const WeightView panel = proj_.slice_columns(p * kPanel, gated.width());
  for (const std::size_t end = row + n_rows; row < end; row += kRowBlock, out += kRowBlock) {
    const std::size_t n = std::min(kRowBlock, end - row);
    const WeightView w = panel.slice_rows(row, n);
    for (std::size_t begin = 0; begin < gated.size(); begin += kMaxGatedRows) {
      const std::size_t n_gated = std::min(kMaxGatedRows, gated.size() - begin);
      float* const y = out + begin * out_stride;
      dot_rows(*kernels_, w, 0, n, gated.slice(begin, n_gated), p == 0 ? y : partial,
               p == 0 ? out_stride : n);
      for (std::size_t i = 0; i < n_gated && p > 0; ++i)
        kernels_->add(y + i * out_stride, partial + i * n, n);
      for (std::size_t i = 0; i < n_gated && bias_ && p == last_panel; ++i) {
        const std::size_t column = (first + begin + i) % n_modules() * proj_.rows + row;
        kernels_->add(y + i * out_stride, bias_ + column, n);
      }
    }
  }
}

}  // namespace terrace
