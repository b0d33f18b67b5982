// SPDX-License-Identifier: Apache-2.0
#include "engine/prepared_rows.h"

#include <algorithm>

#include "engine/error.h"
#include "engine/linear.h"

namespace terrace {
namespace {

constexpr std::size_t kAlign =
    64;  // of a quantised row: kernels may count on padding with zeros to this length

constexpr std::size_t padded(std::size_t n) noexcept { return (n + kAlign - 1) / kAlign * kAlign; }

constexpr std::size_t rows_of_pack(Packs packs) noexcept {
  return packs == Packs::kSplit ? kSplitRows : kPackRows;
}

}  // namespace

PreparedRows::PreparedRows(Exec& exec, const DenseKernels& kernels, DType dtype, ConstRows x)
    : PreparedRows(unpacked(exec, kernels, dtype, x)) {
  pack(exec, kernels, packs_for(kernels, dtype));
}

PreparedRows PreparedRows::unpacked(Exec& exec, const DenseKernels& kernels, DType dtype, ConstRows x) {
  if (!is_quantized(dtype)) {
    auto** const rows = exec.ws.take<const float*>(x.n);
    for (std::size_t t = 0; t < x.n; ++t) rows[t] = x.row(t);
    return of(rows, x.n, x.width);
  }
  const std::size_t row = padded(x.width);
  auto* const q = exec.ws.take<std::int8_t>(x.n * row);
  auto* const rows = exec.ws.take<QuantizedRow>(x.n);
  exec.for_range(x.n, 1, 4 * x.width, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) {
      rows[t] = quantize_row(kernels, x.row(t), x.width, q + t * row);
    }
  });
  return of(rows, x.n, x.width);
}

PreparedRows PreparedRows::of(const float** rows, std::size_t n, std::size_t width) noexcept {
  PreparedRows result;
  result.f32_ = rows;
  result.n_ = n;
  result.width_ = width;
  return result;
}

PreparedRows PreparedRows::of(QuantizedRow* rows, std::size_t n, std::size_t width) noexcept {
  PreparedRows result;
  result.quantized_ = rows;
  result.n_ = n;
  result.width_ = width;
  return result;
}

std::size_t PreparedRows::n_to_pack(Packs packs) const noexcept {
  switch (packs) {
    case Packs::kNone:
      return 0;
    case Packs::kQ8:
    case Packs::kQ4: {
      if (width_ % kPackMultiple != 0) return 0;
      const std::size_t rest = n_ % kPackRows;
      return rest >= kMinPacked ? n_ : n_ - rest;
    }
    case Packs::kSplit:
      return n_;
  }
  return 0;
}

std::size_t PreparedRows::pack_offset(Packs packs, std::size_t i) const noexcept {
  switch (packs) {
    case Packs::kNone:
      break;
    case Packs::kQ8:
      return i * pack_bytes(width_);
    case Packs::kQ4:
      return i * q4_pack_bytes(width_);
    case Packs::kSplit:
      return i * split_bytes(width_, n_ == 1);
  }
  return 0;
}

std::size_t PreparedRows::packs_bytes(Packs packs) const noexcept {
  return pack_offset(packs, (n_to_pack(packs) + rows_of_pack(packs) - 1) / rows_of_pack(packs));
}

void PreparedRows::pack_rows(const DenseKernels& kernels, Packs packs, std::size_t begin, std::size_t end,
                             std::byte* to) const noexcept {
  const std::size_t rows = rows_of_pack(packs);
  TERRACE_DCHECK(begin % rows == 0);
  for (; begin < end; begin += rows) {
    const std::size_t n = std::min(rows, end - begin);
    std::byte* const pack = to + pack_offset(packs, begin / rows);
    if (packs == Packs::kQ8) {
      kernels.pack_q8(quantized_ + begin, n, width_, pack);
    } else if (packs == Packs::kQ4) {
      kernels.pack_q4(quantized_ + begin, n, width_, pack);
    } else {
      kernels.pack_split(f32_ + begin, n, width_, n_ == 1, pack);
    }
  }
}

void PreparedRows::pack(Exec& exec, const DenseKernels& kernels, Packs packs) {
  n_packed_ = n_to_pack(packs);
  packed_as_ = packs;
  if (n_packed_ == 0) return;
  auto* const to = exec.ws.take<std::byte>(packs_bytes(packs));
  packs_ = to;
  // Whole packs: two threads that write the same lines of one would wait for each other.
  exec.for_range(n_packed_, rows_of_pack(packs), width_,
                 [&](std::size_t begin, std::size_t end) { pack_rows(kernels, packs, begin, end, to); });
}

PreparedRows PreparedRows::packed_into(const DenseKernels& kernels, Packs packs,
                                       std::byte* to) const noexcept {
  PreparedRows copy = *this;
  copy.n_packed_ = n_to_pack(packs);
  copy.packed_as_ = packs;
  copy.packs_ = to;
  pack_rows(kernels, packs, 0, copy.n_packed_, to);
  return copy;
}

PreparedRows PreparedRows::gathered(Exec& exec, std::span<const std::uint32_t> indices) const {
  const auto take = [&]<class T>(const T* from) {
    auto* const rows = exec.ws.take<T>(indices.size());
    std::transform(indices.begin(), indices.end(), rows, [from](std::uint32_t i) { return from[i]; });
    return of(rows, indices.size(), width_);
  };
  return quantized_ ? take(quantized_) : take(f32_);
}

PreparedRows PreparedRows::slice(std::size_t begin, std::size_t n) const noexcept {
  PreparedRows rows = *this;
  rows.f32_ = f32_ ? f32_ + begin : nullptr;
  rows.quantized_ = quantized_ ? quantized_ + begin : nullptr;
  rows.n_ = n;
  const std::size_t in_pack = rows_of_pack(packed_as_);
  const bool whole = begin % in_pack == 0 && (n % in_pack == 0 || begin + n == n_);
  TERRACE_DCHECK(packed_as() != Packs::kSplit || (whole && (n > 1 || n == n_)));
  rows.n_packed_ = whole && begin < n_packed_ ? std::min(n, n_packed_ - begin) : 0;
  if (rows.n_packed_ > 0) rows.packs_ = packs_ + pack_offset(packed_as_, begin / in_pack);
  return rows;
}

PreparedRows PreparedRows::reserve(Exec& exec, DType dtype, std::size_t n, std::size_t width) {
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
  return result;
}

void PreparedRows::put_product(const DenseKernels& kernels, std::size_t i, const float* x,
                               const Int16Row& words, const WeightView& w, std::size_t r) const noexcept {
  TERRACE_DCHECK(w.cols == width_ && width_ <= kMostProduct);
  if (own_f32_) {
    float* const row = own_f32_ + i * padded(width_);
    multiply_row(kernels, w, r, x, row);
    f32_[i] = row;
    return;
  }
  std::int8_t* const q = own_q8_ + i * padded(width_);
  if (words.scale > 0.0F) {
    TERRACE_DCHECK(multiplies_words(w.dtype, DType::kQ8));
    const auto* const factors = reinterpret_cast<const std::int8_t*>(w.row(r));
    const float scale = *reinterpret_cast<const float*>(w.row_scale(r));
    if (gate_row(kernels, words, factors, scale, width_, q, quantized_[i])) return;
  }
  alignas(kCacheLine) float product[kMostProduct];
  const float largest = multiply_row_and_measure(kernels, w, r, x, product);
  quantized_[i] = quantize_row(kernels, product, width_, largest, q);
}

}  // namespace terrace
