// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <utility>
#include <variant>
#include <vector>

#include "attention/growing_table.h"
#include "engine/exec.h"
#include "engine/linear.h"
#include "engine/tensor.h"

namespace terrace {

/// Absolute positional encodings of Trax (`PositionalEncoding` and research/position_encodings.py in
/// trax/layers). Every kind offers
///   add(exec, x, first)     row t of x has position first + t
/// and treats each row on its own, so that any split of a sequence gives the same bits. Tables are views: the
/// model owns their bytes. A position past the end of a table takes its last row, as Trax's clamped slices do
/// in steps of one token.

/// x[t] += table[p]; table [max_len, d].
class LearnedPosition {
 public:
  LearnedPosition(const float* table, std::size_t max_len, std::size_t d)
      : table_(table), max_len_(max_len), d_(d) {}
  void add(const Exec& exec, Rows x, std::size_t first) const noexcept;

 private:
  const float* table_;
  std::size_t max_len_, d_;
};

/// x[t] += proj table[p]; table [max_len, k], proj a map [d, k]. (Trax's predict mode encodes every single
/// step as position 0; this is its eval mode.)
class LowRankPosition {
 public:
  LowRankPosition(const float* table, std::size_t max_len, const Linear& proj)
      : table_(table), max_len_(max_len), proj_(proj) {}
  void add(Exec& exec, Rows x, std::size_t first) const;

 private:
  const float* table_;
  std::size_t max_len_;
  Linear proj_;
};

/// Channels [0, d/2): x += sin(p w_j), channels [d/2, d): x += cos(p w_j), w_j = 10000^(-2j/d). d is even.
class SinCosPosition {
 public:
  explicit SinCosPosition(std::size_t d);
  void add(const Exec& exec, Rows x, std::size_t first) const noexcept;

 private:
  std::vector<double> frequency_;
};

/// Channel i * d/8 + c: x += sum_b digit_i(p, base_b) digits[b, i, c] with bases 11, 13, 14, 15, digit 0 the
/// least significant; position 0 also adds start [d]. digits [4, 8, d/8]; d is a multiple of 8.
class FixedBasePosition {
 public:
  static constexpr std::array<std::size_t, 4> kBases{11, 13, 14, 15};
  static constexpr std::size_t kDigits = 8;

  FixedBasePosition(const float* digits, const float* start, std::size_t d)
      : digits_(digits), start_(start), d_(d) {}
  void add(const Exec& exec, Rows x, std::size_t first) const noexcept;

 private:
  const float* digits_;
  const float* start_;
  std::size_t d_;
};

/// The position unravels row-major over the axis sizes; the rows of all axes side by side are added.
class AxialPosition {
 public:
  struct Axis {
    const float* table;  ///< [size, width]
    std::size_t size;
    std::size_t width;
  };
  explicit AxialPosition(std::vector<Axis> axes);
  void add(const Exec& exec, Rows x, std::size_t first) const noexcept;

 private:
  std::vector<Axis> axes_;
  std::size_t n_positions_ = 1;
};

/// Cosine waves with a drifting phase, then a linear map [d, d]. Phases are a fixed pseudo-random walk over
/// positions, computed as far as positions are used. Source: Trax `InfinitePositionalEncoding(affine=False)`,
/// eval mode.
class InfinitePosition {
 public:
  InfinitePosition(const Linear& map, std::size_t max_positions, double drift = 0.03);
  void add(Exec& exec, Rows x, std::size_t first) const;

 private:
  void fill(float* walk, std::size_t begin, std::size_t end) const noexcept;

  Linear map_;
  std::size_t max_positions_, half_;
  std::vector<double> frequency_;  // [half]
  float root_of_drift_;
  GrowingTable walk_;  // [max_positions, half]; times root_of_drift: phases in cycles
};

/// Overwrites the last three channels with 1 / (1 + q), r / bin_length, q mod 2, where p = q * bin_length +
/// r.
class TimeBinPosition {
 public:
  explicit TimeBinPosition(std::size_t bin_length) : bin_length_(bin_length) {}
  void add(const Exec& exec, Rows x, std::size_t first) const noexcept;

 private:
  std::size_t bin_length_;
};

/// Any of them, or none.
class PositionEncoding {
 public:
  PositionEncoding() = default;  ///< none: adds nothing
  template <class Kind>
  explicit PositionEncoding(Kind kind) : kind_(std::move(kind)) {}

  void add(Exec& exec, Rows x, std::size_t first) const;

 private:
  std::variant<std::monostate, LearnedPosition, LowRankPosition, SinCosPosition, FixedBasePosition,
               AxialPosition, InfinitePosition, TimeBinPosition>
      kind_;
};

}  // namespace terrace
