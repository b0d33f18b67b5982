// SPDX-License-Identifier: Apache-2.0
#include "models/dense_block.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "engine/error.h"

namespace terrace {
namespace {

void check_finite(const WeightFile& file, const std::string& name, std::span<const float> values) {
  TERRACE_CHECK(std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }), kBadFile,
                file.label() + ": tensor '" + name + "' holds a value that is not finite");
}

std::vector<float> widened(const WeightFile& file, const DenseKernels& kernels, const std::string& name) {
  const WeightView w = file.weight(name);
  std::vector<float> values(w.rows * w.cols);
  for (std::size_t r = 0; r < w.rows; ++r) widen_row(kernels, w, r, values.data() + r * w.cols);
  check_finite(file, name, values);
  return values;
}

}  // namespace

DenseBlock::DenseBlock(const WeightFile& file, const DenseKernels& kernels, const std::string& name,
                       bool gated)
    : kernels_(kernels) {
  const WeightView w1 = file.weight(name + ".w1.weight");
  d_ff_ = w1.rows;
  d_model_ = w1.cols;
  w1_ = widened(file, kernels, name + ".w1.weight");
  w2_ = widened(file, kernels, name + ".w2.weight");
  if (gated) {
    gate_ = widened(file, kernels, name + ".gate.weight");
    TERRACE_CHECK(file.find(name + ".gate.bias") == nullptr, kUnsupported,
                  file.label() + ": tensor '" + name + ".gate.bias': gates of experts have no bias");
  }
  if (file.find(name + ".w1.bias") != nullptr) {
    const auto bias = file.f32(name + ".w1.bias");
    check_finite(file, name + ".w1.bias", bias);
    b1_.assign(bias.begin(), bias.end());
  }
  w2_columns_.resize(w2_.size());
  for (std::size_t u = 0; u < d_ff_; ++u) {
    float* const column = w2_columns_.data() + u * d_model_;
    for (std::size_t i = 0; i < d_model_; ++i) column[i] = w2_[i * d_ff_ + u];
    w2_length_.push_back(
        static_cast<float>(std::sqrt(std::inner_product(column, column + d_model_, column, 0.0))));
  }
}

Linear DenseBlock::map(const std::vector<float>& values, std::size_t n_rows,
                       const float* bias) const noexcept {
  const std::size_t n_columns = values.size() / n_rows;
  return {kernels_, {values.data(), nullptr, n_rows, n_columns, n_columns, DType::kF32}, bias};
}

void DenseBlock::activate(Exec& exec, ConstRows x, Rows a) const {
  const Workspace::Scope scope(exec.ws);
  map(w1_, d_ff_, b1_.empty() ? nullptr : b1_.data()).forward(exec, x, a);
  if (!gated()) {
    for (std::size_t t = 0; t < a.n; ++t) kernels_.relu(a.row(t), d_ff_);
    return;
  }
  const Rows g{exec.ws.take<float>(x.n * d_ff_), x.n, d_ff_, d_ff_};
  map(gate_, d_ff_, nullptr).forward(exec, x, g);
  for (std::size_t t = 0; t < a.n; ++t) {
    kernels_.relu(g.row(t), d_ff_);
    kernels_.multiply(a.row(t), g.row(t), d_ff_);
  }
}

void DenseBlock::add_up(Exec& exec, ConstRows a, Rows y) const {
  map(w2_, d_model_, nullptr).forward(exec, a, y);
}

}  // namespace terrace
