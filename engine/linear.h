// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "engine/exec.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/tensor.h"

namespace terrace {

/// Activation rows as the dot kernels of one weight dtype want them: pointers to f32 rows, or quantised rows;
/// many quantised ones also packed. Made once and used by every linear map that reads the same input (q, k
/// and v of one norm, say).
class PreparedRows {
 public:
  /// Fewer rows than this at the end, or altogether, are not packed: half of a pack's lanes would be idle.
  static constexpr std::size_t kMinPacked = 8;
  /// Longest row of put_product(): it is made on the stack before it is quantised.
  static constexpr std::size_t kMostProduct = 1024;

  /// Quantises `x` into the workspace if `dtype` is q8 or q4; keeps pointers into `x` otherwise.
  /// Lives as long as the surrounding Workspace::Scope and `x`.
  PreparedRows(Exec& exec, const DenseKernels& kernels, DType dtype, ConstRows x);

  /// Overlapping windows: for each row of `x`, `n_windows` windows of `width` floats that start `step` floats
  /// apart. A row is quantised once, with one scale. Used by convolutions over modules.
  static PreparedRows windows(Exec& exec, const DenseKernels& kernels, DType dtype, ConstRows x,
                              std::size_t n_windows, std::size_t step, std::size_t width);

  /// `n` rows of `width` that the chunks of a phase make: put_product() for each, then pack().
  static PreparedRows reserve(Exec& exec, const DenseKernels& kernels, DType dtype, std::size_t n,
                              std::size_t width);
  /// Row i becomes a * b, element by element, at most kMostProduct of them. Rows are independent.
  void put_product(const DenseKernels& kernels, std::size_t i, const float* a, const float* b) const noexcept;
  /// Packs rows [begin, end), which must be there; both are multiples of kPackRows, or the end of the rows.
  void pack(const DenseKernels& kernels, std::size_t begin, std::size_t end) const noexcept;

  /// Rows [begin, begin + n). They stay packed if begin is a multiple of kPackRows, and n is or reaches the
  /// end.
  PreparedRows slice(std::size_t begin, std::size_t n) const noexcept;

  std::size_t size() const noexcept { return n_; }
  std::size_t width() const noexcept { return width_; }
  bool quantized() const noexcept { return quantized_ != nullptr; }
  const float* const* f32() const noexcept { return f32_; }
  const QuantizedRow* q8() const noexcept { return quantized_; }

  /// The first so many rows are packed; 0 if none are.
  std::size_t n_packed() const noexcept { return n_packed_; }
  const std::byte* packs() const noexcept { return packs_; }

 private:
  PreparedRows() = default;
  /// Takes memory for the packs of the rows, if they are to be packed.
  void reserve_packs(Exec& exec, const DenseKernels& kernels, DType dtype);

  const float** f32_ = nullptr;
  QuantizedRow* quantized_ = nullptr;
  float* own_f32_ = nullptr;       ///< of reserve(): [n, width] ...
  std::int8_t* own_q8_ = nullptr;  ///< ... or padded rows
  std::byte* packs_ = nullptr;
  std::size_t n_ = 0;
  std::size_t width_ = 0;
  std::size_t n_packed_ = 0;
};

/// Whether two dtypes want the same preparation (f32 and bf16 do; q8 and q4 do).
constexpr bool same_preparation(DType a, DType b) noexcept {
  const auto quantized = [](DType t) { return t == DType::kQ8 || t == DType::kQ4; };
  return quantized(a) == quantized(b);
}

/// y[t * y_stride + r] = <w_r, x_t> for rows [begin, end) of `w` on the calling thread: the body of a phase.
void dot_rows(const DenseKernels& kernels, const WeightView& w, std::size_t begin, std::size_t end,
              const PreparedRows& x, float* y, std::size_t y_stride) noexcept;

/// y_i += sum_k a[k] * row_k, columns [begin, end) of rows given by index `rows[k]` of `w`.
/// `scratch_a` holds n floats (scaled coefficients), `scratch_rows` 2n pointers; begin is a multiple of 64.
void axpy_rows(const DenseKernels& kernels, const WeightView& w, const float* a, const std::uint32_t* rows,
               std::size_t n, std::size_t begin, std::size_t end, float* y, float* scratch_a,
               const void** scratch_rows) noexcept;

/// Widens row `r` of `w` (its first cols elements) to f32: the embedding lookup.
void widen_row(const DenseKernels& kernels, const WeightView& w, std::size_t r, float* y) noexcept;

/// A linear map y = W x + b with any weight dtype.
/// Cost per call: every byte of W once, whatever the number of rows in x.
class Linear {
 public:
  Linear() = default;
  /// `bias` (w.rows floats) may be null.
  Linear(const DenseKernels& kernels, const WeightView& w, const float* bias)
      : kernels_(&kernels), w_(w), bias_(bias) {}

  std::size_t d_in() const noexcept { return w_.cols; }
  std::size_t d_out() const noexcept { return w_.rows; }
  const WeightView& weight() const noexcept { return w_; }
  const float* bias() const noexcept { return bias_; }
  const DenseKernels& kernels() const noexcept { return *kernels_; }
  explicit operator bool() const noexcept { return static_cast<bool>(w_); }

  /// y = W x + b; one phase. x and y must not overlap.
  void forward(Exec& exec, ConstRows x, Rows y) const;
  void forward(Exec& exec, const PreparedRows& x, Rows y) const;
  /// Rows [begin, end) of the map on the calling thread; for phases that fuse several maps.
  void forward_range(const PreparedRows& x, std::size_t begin, std::size_t end, Rows y) const noexcept;

 private:
  const DenseKernels* kernels_ = nullptr;
  WeightView w_;
  const float* bias_ = nullptr;
};

}  // namespace terrace
