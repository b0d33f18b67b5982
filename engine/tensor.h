// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace terrace {

/// How the elements of a weight are stored; docs/model-file.md gives the exact layouts.
enum class DType : std::uint8_t {
  kF32,
  kBf16,  ///< upper half of an f32
  kQ8,    ///< int8 with one f32 scale per row
  kQ4,    ///< 4-bit, groups of kQ4Group along the row with a bf16 scale each
};

inline constexpr std::size_t kQ4Group = 32;    ///< columns that share one q4 scale
inline constexpr int kQ4Zero = 8;              ///< what a nibble holds for 0
inline constexpr std::size_t kQ4Columns = 64;  ///< the length of a q4 row is a multiple of this

/// Reduction order of q4 dot products (dense_scalar.cpp): group g is added to sum g mod kQ4Sums; the sums are
/// added up every kQ4Span columns.
inline constexpr std::size_t kQ4Sums = 4;
inline constexpr std::size_t kQ4Span = 1024;

/// Width of all fixed-order reductions, whatever the registers of the CPU hold: one AVX-512 register, two
/// AVX2 ones, four NEON ones.
inline constexpr std::size_t kLanes = 16;

inline constexpr DType kDTypes[] = {DType::kF32, DType::kBf16, DType::kQ8, DType::kQ4};

/// Lower-case name as it appears on the command line ("f32", "bf16", "q8", "q4").
constexpr const char* dtype_name(DType dtype) noexcept {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kBf16:
      return "bf16";
    case DType::kQ8:
      return "q8";
    case DType::kQ4:
      return "q4";
  }
  return "?";
}

/// The dtype of that name. Throws Error{kBadArgument}.
DType parse_dtype(std::string_view name);

/// Whether weights of `dtype` are multiplied by quantised activations.
constexpr bool is_quantized(DType dtype) noexcept { return dtype == DType::kQ8 || dtype == DType::kQ4; }

/// Bytes that `n` columns of one row take, scales not counted.
constexpr std::size_t row_bytes(DType dtype, std::size_t n) noexcept {
  switch (dtype) {
    case DType::kF32:
      return 4 * n;
    case DType::kBf16:
      return 2 * n;
    case DType::kQ8:
      return n;
    case DType::kQ4:
      return n / 2;
  }
  return 0;
}

/// Bytes of the scales of one row of `n` columns.
constexpr std::size_t row_scale_bytes(DType dtype, std::size_t n) noexcept {
  return dtype == DType::kQ8 ? 4 : dtype == DType::kQ4 ? 2 * (n / kQ4Group) : 0;
}

/// A read-only weight matrix of any dtype: `rows` rows of `cols` elements, rows back to back. Does not own.
/// `cols` is the length of a row in use, `row_stride` that of a stored row (elements), so that a nested width
/// can look at a prefix of every row.
struct WeightView {
  const void* data = nullptr;
  const void* scale = nullptr;  ///< q8: float[rows]; q4: bf16[rows][row_stride / 32]; else null
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::size_t row_stride = 0;
  DType dtype = DType::kF32;

  explicit operator bool() const noexcept { return data != nullptr; }
  const std::byte* row(std::size_t r) const noexcept {
    return static_cast<const std::byte*>(data) + r * row_bytes(dtype, row_stride);
  }
  const std::byte* row_scale(std::size_t r) const noexcept {
    return scale ? static_cast<const std::byte*>(scale) + r * row_scale_bytes(dtype, row_stride) : nullptr;
  }
  /// Rows [begin, begin + n).
  WeightView slice_rows(std::size_t begin, std::size_t n) const noexcept {
    return {row(begin), row_scale(begin), n, cols, row_stride, dtype};
  }
  /// The first `n` columns of every row (a multiple of 64 for q4).
  WeightView prefix_columns(std::size_t n) const noexcept {
    return {data, scale, rows, n, row_stride, dtype};
  }
  /// Columns [begin, begin + n) of every row (multiples of 64 for q4).
  WeightView slice_columns(std::size_t begin, std::size_t n) const noexcept {
    const std::size_t scales = dtype == DType::kQ4 ? row_scale_bytes(dtype, begin) : 0;
    return {row(0) + row_bytes(dtype, begin),
            scale ? row_scale(0) + scales : nullptr,
            rows,
            n,
            row_stride,
            dtype};
  }
  /// Bytes read when every element in use is read once.
  std::size_t bytes() const noexcept {
    return rows * (row_bytes(dtype, cols) + row_scale_bytes(dtype, cols));
  }
};

/// `n` activation rows of `width` floats, `stride` floats apart. Does not own.
struct Rows {
  float* data = nullptr;
  std::size_t n = 0;
  std::size_t width = 0;
  std::size_t stride = 0;

  float* row(std::size_t t) const noexcept { return data + t * stride; }
  Rows slice(std::size_t begin, std::size_t count) const noexcept {
    return {data + begin * stride, count, width, stride};
  }
};

struct ConstRows {
  const float* data = nullptr;
  std::size_t n = 0;
  std::size_t width = 0;
  std::size_t stride = 0;

  ConstRows() = default;
  ConstRows(const float* d, std::size_t rows, std::size_t w, std::size_t s) noexcept
      : data(d), n(rows), width(w), stride(s) {}
  ConstRows(const Rows& r) noexcept : data(r.data), n(r.n), width(r.width), stride(r.stride) {}  // NOLINT
  const float* row(std::size_t t) const noexcept { return data + t * stride; }
  ConstRows slice(std::size_t begin, std::size_t count) const noexcept {
    return {data + begin * stride, count, width, stride};
  }
};

}  // namespace terrace
