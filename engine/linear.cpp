// SPDX-License-Identifier: Apache-2.0
#include "engine/linear.h"

#include <algorithm>

#include "engine/ceil_div.h"
#include "engine/dtype.h"
#include "engine/error.h"

namespace terrace {
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

/// `n` rows of `w` from `begin` on, whole packs of them, for those activation rows that are packed.
void dot_packed(const DenseKernels& kernels, const WeightView& w, std::size_t begin, std::size_t n,
                const PreparedRows& x, float* y, std::size_t y_stride) noexcept {
  if (w.dtype == DType::kQ8) {
    kernels.dot_packed_q8(reinterpret_cast<const std::int8_t*>(w.row(begin)), w.row_stride,
                          reinterpret_cast<const float*>(w.row_scale(begin)), n, x.packs(), x.q8(),
                          x.n_packed(), w.cols, y, y_stride);
  } else {
    kernels.dot_packed_q4(reinterpret_cast<const std::uint8_t*>(w.row(begin)), w.row_stride,
                          reinterpret_cast<const std::uint16_t*>(w.row_scale(begin)), n, x.packs(), x.q8(),
                          x.n_packed(), w.cols, y, y_stride);
  }
}

/// Pointers to byte `offset` of rows of `w`, in `scratch`. The kernels take arrays of typed pointers; a
/// pointer is written and read as the same type throughout.
template <class T>
const T** row_pointers(const WeightView& w, const std::uint32_t* rows, std::size_t n, std::size_t offset,
                       const void** scratch) noexcept {
  auto** const typed = reinterpret_cast<const T**>(scratch);
  for (std::size_t k = 0; k < n; ++k) typed[k] = reinterpret_cast<const T*>(w.row(rows[k]) + offset);
  return typed;
}

/// Pointers to the scales of rows of `w`, q4, from `group` on, in `scratch`.
const std::uint16_t** row_scales(const WeightView& w, const std::uint32_t* rows, std::size_t n,
                                 std::size_t group, const void** scratch) noexcept {
  auto** const scales = reinterpret_cast<const std::uint16_t**>(scratch);
  for (std::size_t k = 0; k < n; ++k) {
    scales[k] = reinterpret_cast<const std::uint16_t*>(w.row_scale(rows[k])) + group;
  }
  return scales;
}

}  // namespace

void dot_rows(const DenseKernels& kernels, const WeightView& w, std::size_t begin, std::size_t end,
              const PreparedRows& x, float* y, std::size_t y_stride) noexcept {
  if (begin >= end) return;
  TERRACE_DCHECK(end <= w.rows && x.width() == w.cols && x.quantized() == is_quantized(w.dtype));
  if (x.packed_as() == Packs::kSplit) {
    TERRACE_DCHECK(w.dtype == DType::kBf16 && x.n_packed() == x.size());
    kernels.dot_split_bf16(reinterpret_cast<const std::uint16_t*>(w.row(begin)), w.row_stride, end - begin,
                           x.packs(), x.size(), w.cols, y + begin, y_stride);
    return;
  }
  // Rows that were packed for weights of one type may also meet another's.
  const bool packed = x.packed_as() == packs_for(kernels, w.dtype) && x.packed_as() != Packs::kNone;
  const std::size_t whole = packed ? (end - begin) / kPackRows * kPackRows : 0;
  if (whole > 0) {
    dot_packed(kernels, w, begin, whole, x, y + begin, y_stride);
    dot_unpacked(kernels, w, begin, begin + whole, x, x.n_packed(), y, y_stride);
  }
  dot_unpacked(kernels, w, begin + whole, end, x, 0, y, y_stride);
}

void dot_gathered(const DenseKernels& kernels, const WeightView& w, const std::uint32_t* rows, std::size_t n,
                  const PreparedRows& x, float* y, float* scratch_scales,
                  const void** scratch_rows) noexcept {
  TERRACE_DCHECK(x.size() == 1 && x.width() == w.cols);
  switch (w.dtype) {
    case DType::kF32:
      kernels.dot_gathered_f32(row_pointers<float>(w, rows, n, 0, scratch_rows), n, x.f32()[0], w.cols, y);
      break;
    case DType::kBf16:
      kernels.dot_gathered_bf16(row_pointers<std::uint16_t>(w, rows, n, 0, scratch_rows), n, x.f32()[0],
                                w.cols, y);
      break;
    case DType::kQ8:
      for (std::size_t k = 0; k < n; ++k)
        scratch_scales[k] = *reinterpret_cast<const float*>(w.row_scale(rows[k]));
      kernels.dot_gathered_q8(row_pointers<std::int8_t>(w, rows, n, 0, scratch_rows), scratch_scales, n,
                              *x.q8(), w.cols, y);
      break;
    case DType::kQ4:
      kernels.dot_gathered_q4(row_pointers<std::uint8_t>(w, rows, n, 0, scratch_rows),
                              row_scales(w, rows, n, 0, scratch_rows + n), n, *x.q8(), w.cols, y);
      break;
  }
}

void axpy_rows(const DenseKernels& kernels, const WeightView& w, const float* a, const std::uint32_t* rows,
               std::size_t n, std::size_t begin, std::size_t end, float* y, float* scratch_a,
               const void** scratch_rows) noexcept {
  TERRACE_DCHECK(begin % kQ4Columns == 0 && end <= w.cols);
  if (n == 0 || begin >= end) return;
  const std::size_t d = end - begin;
  const std::size_t offset = row_bytes(w.dtype, begin);
  const auto pointers = [&]<class T>() { return row_pointers<T>(w, rows, n, offset, scratch_rows); };
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
    case DType::kQ4:
      kernels.axpy_q4(a, pointers.operator()<std::uint8_t>(),
                      row_scales(w, rows, n, begin / kQ4Group, scratch_rows + n), n, y + begin, d);
      break;
  }
}

void multiply_row(const DenseKernels& kernels, const WeightView& w, std::size_t r, const float* x,
                  float* y) noexcept {
  const std::byte* const data = w.row(r);
  switch (w.dtype) {
    case DType::kF32:
      kernels.multiply_to(x, reinterpret_cast<const float*>(data), y, w.cols);
      break;
    case DType::kBf16:
      kernels.multiply_bf16(x, reinterpret_cast<const std::uint16_t*>(data), y, w.cols);
      break;
    case DType::kQ8:
      kernels.multiply_q8(x, reinterpret_cast<const std::int8_t*>(data),
                          *reinterpret_cast<const float*>(w.row_scale(r)), y, w.cols);
      break;
    case DType::kQ4:
      widen_row(kernels, w, r, y);
      kernels.multiply(y, x, w.cols);
      break;
  }
}

float multiply_row_and_measure(const DenseKernels& kernels, const WeightView& w, std::size_t r,
                               const float* x, float* y) noexcept {
  if (w.dtype == DType::kQ8) {
    return kernels.multiply_q8(x, reinterpret_cast<const std::int8_t*>(w.row(r)),
                               *reinterpret_cast<const float*>(w.row_scale(r)), y, w.cols);
  }
  multiply_row(kernels, w, r, x, y);
  return kernels.largest_magnitude(y, w.cols);
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
  // Ranges of whole cache lines of y: two threads never write the same line.
  exec.for_range(w_.rows, kCacheLine / sizeof(float), dot_work(w_, x),
                 [&](std::size_t begin, std::size_t end) { forward_range(x, begin, end, y); });
}

void Linear::forward_beside(Exec& exec, TaskRef leaders, const PreparedRows& x, Rows y) const {
  const std::size_t others = exec.team.size() - 1;
  const std::size_t work = dot_work(w_, x);
  if (!worth_a_phase_beside(w_.rows * work, exec.team.size())) {
    leaders();
    return forward(exec, x, y);
  }
  const std::size_t per_chunk = Exec::items_per_chunk(w_.rows, kCacheLine / sizeof(float), work, others);
  const auto n_chunks = static_cast<std::uint32_t>(ceil_div(w_.rows, per_chunk));
  exec.team.run(1 + n_chunks, [&](std::uint32_t chunk) {
    if (chunk == 0) return leaders();
    const std::size_t begin = (chunk - 1) * per_chunk;
    forward_range(x, begin, std::min(w_.rows, begin + per_chunk), y);
  });
}

Largest Linear::largest(Exec& exec, ConstRows x) const {
  constexpr std::size_t kRows = 1024;  // 4 KB of y; rows enough for the kernel's streams
  TERRACE_DCHECK(x.n == 1);
  const Workspace::Scope scope(exec.ws);
  const PreparedRows prepared(exec, *kernels_, w_.dtype, x);
  const std::size_t n_blocks = ceil_div(w_.rows, kRows);
  return exec.largest_of_blocks(n_blocks, kRows * dot_work(w_, prepared),
                                [&](std::size_t block, Largest& largest) {
                                  alignas(kCacheLine) float y[kRows];
                                  const std::size_t begin = block * kRows;
                                  const std::size_t n = std::min(kRows, w_.rows - begin);
                                  dot_rows(*kernels_, w_.slice_rows(begin, n), 0, n, prepared, y, n);
                                  if (bias_) kernels_->add(y, bias_ + begin, n);
                                  largest.take(y, n, begin);
                                });
}

void Linear::forward_range(const PreparedRows& x, std::size_t begin, std::size_t end, Rows y) const noexcept {
  TERRACE_DCHECK(x.size() == y.n && y.width >= w_.rows);
  dot_rows(*kernels_, w_, begin, end, x, y.data, y.stride);
  if (!bias_) return;
  for (std::size_t t = 0; t < y.n; ++t) kernels_->add(y.row(t) + begin, bias_ + begin, end - begin);
}

}  // namespace terrace
