// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/exec.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/tensor.h"

namespace terrace {

/// What activation rows are packed for.
enum class Packs : std::uint8_t {
  kNone,
  kQ8,     ///< for q8 weights: faster, the same bits. Rows that do not fill half a pack stay as they are
  kQ4,     ///< the same for q4 weights
  kSplit,  ///< for bf16 weights, the sums of dot_split_bf16: other bits, so all rows are packed, however few
};

/// Packs for products with weights of `dtype` that have the bits of every instruction set.
constexpr Packs packs_for(const DenseKernels& kernels, DType dtype) noexcept {
  if (dtype == DType::kQ8 && kernels.pack_q8) return Packs::kQ8;
  return dtype == DType::kQ4 && kernels.pack_q4 ? Packs::kQ4 : Packs::kNone;
}
/// Packs for a layer with short weight rows, which gains by tiles, where there are any, even with one token.
constexpr Packs tile_packs_for(const DenseKernels& kernels, DType dtype) noexcept {
  return dtype == DType::kBf16 && kernels.pack_split ? Packs::kSplit : packs_for(kernels, dtype);
}
/// Packs for a layer that multiplies n_modules rows of every token by the same weights. Whole packs only, so
/// that the rows of some of the tokens are whole packs too.
constexpr Packs module_packs_for(const DenseKernels& kernels, DType dtype, std::size_t n_modules) noexcept {
  return n_modules % kSplitRows == 0 ? tile_packs_for(kernels, dtype) : packs_for(kernels, dtype);
}

/// About how many multiply-adds of sixteen activation rows a core does in the time it takes to read a byte
/// from memory (Emerald Rapids, bench_sparse_qkv), for cutting phases: with bf16 weights, two cores spend
/// their time on reading rather than on multiplying (lm1b-24L, q, k and v on both: a token is 6 to 8 %
/// faster).
constexpr std::size_t multiply_adds_per_byte(Packs packs) noexcept {
  switch (packs) {
    case Packs::kNone:
      return 2;
    case Packs::kSplit:
      return 3;
    case Packs::kQ8:
      return 20;
    case Packs::kQ4:
      return 8;
  }
  return 1;
}

/// Work of a weight row of `d` columns with `n` activation rows, as Exec counts it: the bytes of the row, or
/// as many as are read in the time of its multiply-adds.
constexpr std::size_t dot_work(DType dtype, std::size_t d, std::size_t n, Packs packs) noexcept {
  return std::max(row_bytes(dtype, d) + row_scale_bytes(dtype, d), n * d / multiply_adds_per_byte(packs));
}

/// Activation rows as the dot kernels of one weight dtype want them: pointers to f32 rows, or quantised rows;
/// many of them also packed. Made once and used by every linear map that reads the same input (q, k and v of
/// one norm, say).
class PreparedRows {
 public:
  /// Fewer rows than this at the end, or altogether, are not packed for q8 and q4: half of a pack's lanes
  /// would be idle.
  static constexpr std::size_t kMinPacked = 8;

  /// Quantises `x` into the workspace if `dtype` is q8 or q4, and packs the rows; keeps pointers into `x`
  /// otherwise. Lives as long as the surrounding Workspace::Scope and `x`.
  PreparedRows(Exec& exec, const DenseKernels& kernels, DType dtype, ConstRows x);
  /// The same, not packed yet.
  static PreparedRows unpacked(Exec& exec, const DenseKernels& kernels, DType dtype, ConstRows x);

  /// `n` rows of `width` that somebody else has made and keeps; not packed.
  static PreparedRows of(const float** rows, std::size_t n, std::size_t width) noexcept;
  static PreparedRows of(QuantizedRow* rows, std::size_t n, std::size_t width) noexcept;

  /// `n` rows of `width` that the chunks of a phase make: put_product() for each, then packed.
  static PreparedRows reserve(Exec& exec, DType dtype, std::size_t n, std::size_t width);
  /// Row i becomes x times row r of `w`, element by element, at most kMostProduct of them. Rows are
  /// independent. Of quantised rows, `words`, which is x in 16 bits, makes those for which it is precise
  /// enough (gate_row()); it is given where multiplies_words().
  void put_product(const DenseKernels& kernels, std::size_t i, const float* x, const Int16Row& words,
                   const WeightView& w, std::size_t r) const noexcept;
  /// Whether put_product() can use words to make rows for weights of `dtype` from rows of `factors`.
  static constexpr bool multiplies_words(DType factors, DType dtype) noexcept {
    return factors == DType::kQ8 && is_quantized(dtype);
  }

  /// Packs the rows in a phase of its own, if they are to be packed.
  void pack(Exec& exec, const DenseKernels& kernels, Packs packs);
  /// Bytes of their packs; 0 if they are not to be packed.
  std::size_t packs_bytes(Packs packs) const noexcept;
  /// A copy that the calling thread packs into packs_bytes() bytes of its own. For a few rows that costs less
  /// than a phase, after which the lines of the packs would have to travel to the other threads.
  PreparedRows packed_into(const DenseKernels& kernels, Packs packs, std::byte* to) const noexcept;

  /// Rows [begin, begin + n). They stay packed if begin is the first row of a pack and they are whole packs
  /// or all rows up to the end. Rows packed as Packs::kSplit may be cut nowhere else.
  PreparedRows slice(std::size_t begin, std::size_t n) const noexcept;
  /// Rows indices[0], indices[1], ... of these, which need not be packed; the result is not.
  PreparedRows gathered(Exec& exec, std::span<const std::uint32_t> indices) const;

  std::size_t size() const noexcept { return n_; }
  std::size_t width() const noexcept { return width_; }
  bool quantized() const noexcept { return quantized_ != nullptr; }
  const float* const* f32() const noexcept { return f32_; }
  const QuantizedRow* q8() const noexcept { return quantized_; }

  /// How many rows are packed: the first ones.
  std::size_t n_packed() const noexcept { return n_packed_; }
  /// How they are packed, if they are.
  Packs packed_as() const noexcept { return n_packed_ > 0 ? packed_as_ : Packs::kNone; }
  const std::byte* packs() const noexcept { return packs_; }

 private:
  PreparedRows() = default;
  /// How many of the rows are to be packed.
  std::size_t n_to_pack(Packs packs) const noexcept;
  /// Where pack `i` begins.
  std::size_t pack_offset(Packs packs, std::size_t i) const noexcept;
  /// Packs rows [begin, end), whole packs, into the packs that start at `to`.
  void pack_rows(const DenseKernels& kernels, Packs packs, std::size_t begin, std::size_t end,
                 std::byte* to) const noexcept;

  const float** f32_ = nullptr;
  QuantizedRow* quantized_ = nullptr;
  float* own_f32_ = nullptr;       ///< of reserve(): [n, width] ...
  std::int8_t* own_q8_ = nullptr;  ///< ... or padded rows
  const std::byte* packs_ = nullptr;
  Packs packed_as_ = Packs::kNone;
  std::size_t n_ = 0;
  std::size_t width_ = 0;
  std::size_t n_packed_ = 0;
};

inline std::size_t dot_work(const WeightView& w, const PreparedRows& x) noexcept {
  return dot_work(w.dtype, w.cols, x.size(), x.packed_as());
}

/// Whether two dtypes want the same preparation (f32 and bf16 do; q8 and q4 do).
constexpr bool same_preparation(DType a, DType b) noexcept { return is_quantized(a) == is_quantized(b); }

}  // namespace terrace
