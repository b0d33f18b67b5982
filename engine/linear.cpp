// SPDX-License-Identifier: Apache-2.0
#include "engine/linear.h"

#include <algorithm>
#include <numeric>

#include "engine/dtype.h"
#include "engine/error.h"

namespace terrace {
namespace {

constexpr std::size_t kAlign =
    64;  // of a quantised row: kernels may count on padding with zeros to this length

constexpr std::size_t padded(std::size_t n) noexcept { return (n + kAlign - 1) / kAlign * kAlign; }

constexpr bool is_quantized(DType dtype) noexcept { return dtype == DType::kQ8 || dtype == DType::kQ4; }

std::int32_t sum_of(const std::int8_t* q, std::size_t n) noexcept {
  return std::accumulate(q, q + n, std::int32_t{0});
}

}  // namespace

PreparedRows::PreparedRows(Exec& exec, const DenseKernels& kernels, DType dtype, ConstRows x)
    : PreparedRows(windows(exec, kernels, dtype, x, 1, 0, x.width)) {}

void PreparedRows::reserve_packs(Exec& exec, const DenseKernels& kernels, DType dtype) {
  if (dtype != DType::kQ8 || !kernels.pack_q8 || width_ % kPackColumns != 0) return;
  const std::size_t rest = n_ % kPackRows;
  n_packed_ = rest >= kMinPacked ? n_ : n_ - rest;
  packs_ = exec.ws.take<std::byte>((n_packed_ + kPackRows - 1) / kPackRows * pack_bytes(width_));
}

void PreparedRows::pack(const DenseKernels& kernels, std::size_t begin, std::size_t end) const noexcept {
  TERRACE_DCHECK(begin % kPackRows == 0);
  for (; begin < std::min(end, n_packed_); begin += kPackRows) {
    kernels.pack_q8(quantized_ + begin, std::min(kPackRows, n_packed_ - begin), width_,
                    packs_ + begin / kPackRows * pack_bytes(width_));
  }
}

PreparedRows PreparedRows::slice(std::size_t begin, std::size_t n) const noexcept {
  PreparedRows rows = *this;
  rows.f32_ = f32_ ? f32_ + begin : nullptr;
  rows.quantized_ = quantized_ ? quantized_ + begin : nullptr;
  rows.n_ = n;
  const bool whole = begin % kPackRows == 0 && (n % kPackRows == 0 || begin + n == n_);
  rows.n_packed_ = whole && begin < n_packed_ ? std::min(n, n_packed_ - begin) : 0;
  if (rows.n_packed_ > 0) rows.packs_ = packs_ + begin / kPackRows * pack_bytes(width_);
  return rows;
}

PreparedRows PreparedRows::reserve(Exec& exec, const DenseKernels& kernels, DType dtype, std::size_t n,
                                   std::size_t width) {
  PreparedRows result;
  result.n_ = n;
  result.width_ = width;
  if (is_quantized(dtype)) {
    result.quantized_ = exec.ws.take<QuantizedRow>(n);
    result.own_q8_ = exec.ws.take<std::int8_t>(n * padded(width));
  } else {
    result.f32_ = exec.ws.take<const float*>(n);
    result.own_f32_ = exec.ws.take<float>(n * padded(width));
  }
  result.reserve_packs(exec, kernels, dtype);
  return result;
}

void PreparedRows::put_product(const DenseKernels& kernels, std::size_t i, const float* a,
                               const float* b) const noexcept {
  if (own_f32_) {
    float* const row = own_f32_ + i * padded(width_);
    kernels.multiply_to(a, b, row, width_);
    f32_[i] = row;
    return;
  }
  alignas(kCacheLine) float product[kMostProduct];
  TERRACE_DCHECK(width_ <= kMostProduct);
  kernels.multiply_to(a, b, product, width_);
  quantized_[i] = kernels.quantize(product, width_, own_q8_ + i * padded(width_));
}

PreparedRows PreparedRows::windows(Exec& exec, const DenseKernels& kernels, DType dtype, ConstRows x,
                                   std::size_t n_windows, std::size_t step, std::size_t width) {
  TERRACE_DCHECK(n_windows == 0 || (n_windows - 1) * step + width <= x.width);
  PreparedRows result;
  result.n_ = x.n * n_windows;
  result.width_ = width;
  if (!is_quantized(dtype)) {
    result.f32_ = exec.ws.take<const float*>(result.n_);
    for (std::size_t t = 0; t < x.n; ++t) {
      for (std::size_t i = 0; i < n_windows; ++i) result.f32_[t * n_windows + i] = x.row(t) + i * step;
    }
    return result;
  }
  const std::size_t row = padded(x.width);
  auto* const q = exec.ws.take<std::int8_t>(x.n * row);
  result.quantized_ = exec.ws.take<QuantizedRow>(result.n_);
  QuantizedRow* const out = result.quantized_;
  exec.for_range(x.n, 1, 4 * x.width, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) {
      const QuantizedRow whole = kernels.quantize(x.row(t), x.width, q + t * row);
      std::int32_t sum = n_windows == 1 && width == x.width ? whole.sum : sum_of(whole.q, width);
      for (std::size_t i = 0; i < n_windows; ++i) {
        const std::int8_t* const window = whole.q + i * step;
        out[t * n_windows + i] = {window, whole.scale, sum};
        // The next window has lost `step` values in front and won as many behind.
        if (i + 1 < n_windows) sum += sum_of(window + width, step) - sum_of(window, step);
      }
    }
  });
  result.reserve_packs(exec, kernels, dtype);
  exec.for_range(result.n_packed_, kPackRows, width,
                 [&](std::size_t begin, std::size_t end) { result.pack(kernels, begin, end); });
  return result;
}

namespace {

/// Rows [begin, end) of `w` for activation rows [first, x.size()), which need not be packed.
void dot_unpacked(const DenseKernels& kernels, const WeightView& w, std::size_t begin, std::size_t end,
                  const PreparedRows& x, std::size_t first, float* y, std::size_t y_stride) noexcept {
  if (begin >= end || first >= x.size()) return;
  const std::size_t n = end - begin;
  const std::size_t n_tokens = x.size() - first;
  const std::byte* const data = w.row(begin);
  float* const out = y + first * y_stride + begin;
  switch (w.dtype) {
    case DType::kF32:
      kernels.dot_f32(reinterpret_cast<const float*>(data), w.row_stride, n, x.f32() + first, n_tokens,
                      w.cols, out, y_stride);
      break;
    case DType::kBf16:
      kernels.dot_bf16(reinterpret_cast<const std::uint16_t*>(data), w.row_stride, n, x.f32() + first,
                       n_tokens, w.cols, out, y_stride);
      break;
    case DType::kQ8:
      kernels.dot_q8(reinterpret_cast<const std::int8_t*>(data), w.row_stride,
                     reinterpret_cast<const float*>(w.row_scale(begin)), n, x.q8() + first, n_tokens, w.cols,
                     out, y_stride);
      break;
    case DType::kQ4:
      kernels.dot_q4(reinterpret_cast<const std::uint8_t*>(data), w.row_stride,
                     reinterpret_cast<const std::uint16_t*>(w.row_scale(begin)), n, x.q8() + first, n_tokens,
                     w.cols, out, y_stride);
      break;
  }
}

}  // namespace

void dot_rows(const DenseKernels& kernels, const WeightView& w, std::size_t begin, std::size_t end,
              const PreparedRows& x, float* y, std::size_t y_stride) noexcept {
  if (begin >= end) return;
  TERRACE_DCHECK(end <= w.rows && x.width() == w.cols && x.quantized() == is_quantized(w.dtype));
  // Rows that were packed for q8 may also meet q4 weights.
  const bool packed = x.n_packed() > 0 && w.dtype == DType::kQ8;
  const std::size_t whole = packed ? (end - begin) / kPackRows * kPackRows : 0;
  if (whole > 0) {
    kernels.dot_packed_q8(reinterpret_cast<const std::int8_t*>(w.row(begin)), w.row_stride,
                          reinterpret_cast<const float*>(w.row_scale(begin)), whole, x.packs(), x.q8(),
                          x.n_packed(), w.cols, y + begin, y_stride);
    dot_unpacked(kernels, w, begin, begin + whole, x, x.n_packed(), y, y_stride);
  }
  dot_unpacked(kernels, w, begin + whole, end, x, 0, y, y_stride);
}

void axpy_rows(const DenseKernels& kernels, const WeightView& w, const float* a, const std::uint32_t* rows,
               std::size_t n, std::size_t begin, std::size_t end, float* y, float* scratch_a,
               const void** scratch_rows) noexcept {
  TERRACE_DCHECK(begin % kQ4Columns == 0 && end <= w.cols);
  if (n == 0 || begin >= end) return;
  const std::size_t d = end - begin;
  const std::size_t offset = row_bytes(w.dtype, begin);
  // The kernels take arrays of typed pointers; a pointer is written and read as the same type throughout.
  const auto pointers = [&]<class T>() {
    auto** const typed = reinterpret_cast<const T**>(scratch_rows);
    for (std::size_t k = 0; k < n; ++k) typed[k] = reinterpret_cast<const T*>(w.row(rows[k]) + offset);
    return typed;
  };
  switch (w.dtype) {
    case DType::kF32:
      kernels.axpy_f32(a, pointers.operator()<float>(), n, y + begin, d);
      break;
    case DType::kBf16:
      kernels.axpy_bf16(a, pointers.operator()<std::uint16_t>(), n, y + begin, d);
      break;
    case DType::kQ8:
      for (std::size_t k = 0; k < n; ++k)
        scratch_a[k] = a[k] * *reinterpret_cast<const float*>(w.row_scale(rows[k]));
      kernels.axpy_q8(scratch_a, pointers.operator()<std::int8_t>(), n, y + begin, d);
      break;
    case DType::kQ4: {
      auto** const scales = reinterpret_cast<const std::uint16_t**>(scratch_rows + n);
      for (std::size_t k = 0; k < n; ++k) {
        scales[k] = reinterpret_cast<const std::uint16_t*>(w.row_scale(rows[k])) + begin / kQ4Group;
      }
      kernels.axpy_q4(a, pointers.operator()<std::uint8_t>(), scales, n, y + begin, d);
      break;
    }
  }
}

void widen_row(const DenseKernels& kernels, const WeightView& w, std::size_t r, float* y) noexcept {
  TERRACE_DCHECK(r < w.rows);
  const std::byte* const data = w.row(r);
  switch (w.dtype) {
    case DType::kF32:
      std::copy_n(reinterpret_cast<const float*>(data), w.cols, y);
      break;
    case DType::kBf16:
      kernels.widen_bf16(reinterpret_cast<const std::uint16_t*>(data), w.cols, y);
      break;
    // One row per token: not worth a kernel of its own. 0 + 1 * row, in the kernels' arithmetic.
    case DType::kQ8: {
      const float scale = *reinterpret_cast<const float*>(w.row_scale(r));
      const auto* const row = reinterpret_cast<const std::int8_t*>(data);
      std::fill_n(y, w.cols, 0.0F);
      kernels.axpy_q8(&scale, &row, 1, y, w.cols);
      break;
    }
    case DType::kQ4: {
      const float one = 1.0F;
      const auto* const row = reinterpret_cast<const std::uint8_t*>(data);
      const auto* const scale = reinterpret_cast<const std::uint16_t*>(w.row_scale(r));
      std::fill_n(y, w.cols, 0.0F);
      kernels.axpy_q4(&one, &row, &scale, 1, y, w.cols);
      break;
    }
  }
}

void Linear::forward(Exec& exec, ConstRows x, Rows y) const {
  const Workspace::Scope scope(exec.ws);
  forward(exec, PreparedRows(exec, *kernels_, w_.dtype, x), y);
}

void Linear::forward(Exec& exec, const PreparedRows& x, Rows y) const {
  const std::size_t row = row_bytes(w_.dtype, w_.cols) + row_scale_bytes(w_.dtype, w_.cols);
  // Ranges of whole cache lines of y: two threads never write the same line.
  exec.for_range(w_.rows, kCacheLine / sizeof(float), std::max(row, w_.cols * x.size()),
                 [&](std::size_t begin, std::size_t end) { forward_range(x, begin, end, y); });
}

void Linear::forward_range(const PreparedRows& x, std::size_t begin, std::size_t end, Rows y) const noexcept {
  TERRACE_DCHECK(x.size() == y.n && y.width >= w_.rows);
  dot_rows(*kernels_, w_, begin, end, x, y.data, y.stride);
  if (!bias_) return;
  for (std::size_t t = 0; t < y.n; ++t) kernels_->add(y.row(t) + begin, bias_ + begin, end - begin);
}

}  // namespace terrace
