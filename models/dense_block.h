// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "engine/exec.h"
#include "engine/linear.h"
#include "engine/weight_file.h"

namespace terrace {

/// A dense feed-forward layer with relu, in f32 and unit by unit: what experts are made of.
class DenseBlock {
 public:
  /// `name` is "decoder.blocks.<i>.ff". Throws Error{kUnsupported} for a gate with bias, Error{kBadFile} for
  /// values that are not finite.
  DenseBlock(const WeightFile& file, const DenseKernels& kernels, const std::string& name, bool gated);

  std::size_t d_model() const noexcept { return d_model_; }
  std::size_t d_ff() const noexcept { return d_ff_; }
  bool gated() const noexcept { return !gate_.empty(); }
  /// Rows of a unit: its gate (empty if there are none), its row of w1, its column of w2.
  ConstRows gate() const noexcept { return rows(gate_); }
  ConstRows w1() const noexcept { return rows(w1_); }
  ConstRows w2() const noexcept { return rows(w2_columns_); }
  const std::vector<float>& b1() const noexcept { return b1_; }  ///< empty if there is none
  /// |w2 column| of each unit.
  const std::vector<float>& w2_length() const noexcept { return w2_length_; }

  /// a [x.n, d_ff]: activations of the units, before w2.
  void activate(Exec& exec, ConstRows x, Rows a) const;
  /// y [a.n, d_model] = w2 a, without the bias.
  void add_up(Exec& exec, ConstRows a, Rows y) const;

 private:
  ConstRows rows(const std::vector<float>& values) const noexcept {
    return {values.data(), values.empty() ? 0 : d_ff_, d_model_, d_model_};
  }
  Linear map(const std::vector<float>& values, std::size_t n_rows, const float* bias) const noexcept;

  const DenseKernels& kernels_;
  std::size_t d_model_ = 0;
  std::size_t d_ff_ = 0;
  std::vector<float> gate_;
  std::vector<float> w1_;
  std::vector<float> w2_;          ///< [d, F], as stored
  std::vector<float> w2_columns_;  ///< [F, d]
  std::vector<float> w2_length_;
  std::vector<float> b1_;
};

}  // namespace terrace
