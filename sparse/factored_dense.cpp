// SPDX-License-Identifier: Apache-2.0
#include "sparse/factored_dense.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/error.h"

namespace terrace {
namespace {

constexpr std::size_t kPanel = FactoredDense::kPanel;

/// Gated rows that meet a panel of the projection at once: 128 rows of a panel are 256 KiB of f32, a part of
/// any L2.
constexpr std::size_t kMaxGatedRows = 128;

/// Rows of the projection per kernel call: bounds the partial sums on the stack (16 KiB).
constexpr std::size_t kRowBlock = 32;

constexpr bool is_quantized(DType dtype) noexcept { return dtype == DType::kQ8 || dtype == DType::kQ4; }

/// The gated inputs x * gate_s of a few tokens, row t * S + s, panel by panel and ready for the weights'
/// dtype.
class GatedRows {
 public:
  GatedRows(Exec& exec, const DenseKernels& kernels, DType dtype, const float* gate, std::size_t n_modules,
            ConstRows x)
      : n_(x.n * n_modules), n_panels_((x.width + kPanel - 1) / kPanel) {
    const std::size_t size = n_panels_ * n_ * kPanel;
    std::int8_t* q = nullptr;
    float* f = nullptr;
    if (is_quantized(dtype)) {
      q = exec.ws.take<std::int8_t>(size);
      q8_ = exec.ws.take<QuantizedRow>(n_panels_ * n_);
    } else {
      f = exec.ws.take<float>(size);
      f32_ = exec.ws.take<const float*>(n_panels_ * n_);
    }
    // A module's gate is read once for all tokens.
    exec.for_range(n_modules, 1, x.n * x.width * sizeof(float), [&](std::size_t begin, std::size_t end) {
      for (std::size_t s = begin; s < end; ++s) {
        for (std::size_t p = 0; p < n_panels_; ++p) {
          const std::size_t column = p * kPanel;
          const std::size_t n = std::min(kPanel, x.width - column);
          for (std::size_t t = 0; t < x.n; ++t) {
            const std::size_t slot = p * n_ + t * n_modules + s;
            alignas(64) float scratch[kPanel];
            float* const gated = f ? f + slot * kPanel : scratch;
            kernels.multiply_to(x.row(t) + column, gate + s * x.width + column, gated, n);
            if (q) {
              q8_[slot] = kernels.quantize(gated, n, q + slot * kPanel);
            } else {
              f32_[slot] = gated;
            }
          }
        }
      }
    });
  }

  std::size_t size() const noexcept { return n_; }
  std::size_t n_panels() const noexcept { return n_panels_; }

  /// y[i * w.rows + r] = <row r of w, gated row first + i> over the columns of panel p, i < n.
  void dot(const DenseKernels& kernels, const WeightView& w, std::size_t p, std::size_t first, std::size_t n,
           float* y) const noexcept {
    const std::size_t column = p * kPanel;
    const std::size_t d = std::min(kPanel, w.cols - column);
    const std::byte* const data = w.row(0) + row_bytes(w.dtype, column);
    first += p * n_;
    switch (w.dtype) {
      case DType::kF32:
        kernels.dot_f32(reinterpret_cast<const float*>(data), w.row_stride, w.rows, f32_ + first, n, d, y,
                        w.rows);
        break;
      case DType::kBf16:
        kernels.dot_bf16(reinterpret_cast<const std::uint16_t*>(data), w.row_stride, w.rows, f32_ + first, n,
                         d, y, w.rows);
        break;
      case DType::kQ8:
        kernels.dot_q8(reinterpret_cast<const std::int8_t*>(data), w.row_stride,
                       reinterpret_cast<const float*>(w.row_scale(0)), w.rows, q8_ + first, n, d, y, w.rows);
        break;
      case DType::kQ4:
        kernels.dot_q4(reinterpret_cast<const std::uint8_t*>(data), w.row_stride,
                       reinterpret_cast<const std::uint16_t*>(w.row_scale(0)) + column / kQ4Group, w.rows,
                       q8_ + first, n, d, y, w.rows);
        break;
    }
  }

 private:
  std::size_t n_;
  std::size_t n_panels_;
  const float** f32_ = nullptr;
  QuantizedRow* q8_ = nullptr;
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

  const auto add_panel = [&](std::size_t p, std::size_t row, std::size_t n_rows) {
    alignas(64) float partial[kRowBlock * kMaxGatedRows];
    const WeightView w = proj_.slice_rows(row, n_rows);
    for (std::size_t first = 0; first < gated.size(); first += kMaxGatedRows) {
      const std::size_t n = std::min(kMaxGatedRows, gated.size() - first);
      gated.dot(*kernels_, w, p, first, n, partial);
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

  const std::size_t multiply_adds =
      gated.size() * proj_.cols / 8;  // about eight of them in the time of one byte
  exec.for_range(d_module, 8, std::max(row_bytes(proj_.dtype, proj_.cols), multiply_adds),
                 [&](std::size_t begin, std::size_t end) {
                   for (std::size_t p = 0; p < gated.n_panels(); ++p) {
                     for (std::size_t r = begin; r < end; r += kRowBlock)
                       add_panel(p, r, std::min(kRowBlock, end - r));
                   }
                 });
}

}  // namespace terrace
