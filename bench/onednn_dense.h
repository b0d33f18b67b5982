// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/check.h"
#include "engine/dtype.h"
#include "engine/isa.h"
#include "engine/linear.h"
#include "engine/prepared_rows.h"
#include "engine/tensor.h"

namespace terrace::bench {

/// oneDNN's inner product, y_t = W x_t for `n_tokens` rows x_t, with the weights in the layout oneDNN
/// prefers: the yardstick for dense layers. Runs on OpenMP, so never inside a ThreadTeam::Region.
class OneDnnDense {
 public:
  /// Copies f32, bf16 or q8 weights (their scales left out: what remains is the integer product).
  /// Check `supported()` before use: some dtypes need a newer CPU or a newer oneDNN.
  explicit OneDnnDense(const WeightView& w, std::size_t n_tokens = 1)
      : dtype_(w.dtype), d_in_(w.cols), d_out_(w.rows) {
    using Tag = dnnl::memory::format_tag;
    const auto type = element_type(w.dtype);
    if (type == dnnl::memory::data_type::undef) return;
    const auto n_in = static_cast<dnnl::memory::dim>(d_in_);
    const auto n_out = static_cast<dnnl::memory::dim>(d_out_);
    const auto n_rows = static_cast<dnnl::memory::dim>(n_tokens);
    const dnnl::memory::desc source({n_rows, n_in}, type, Tag::nc);
    const dnnl::memory::desc weights({n_out, n_in}, type, Tag::any);
    const dnnl::memory::desc target({n_rows, n_out}, dnnl::memory::data_type::f32, Tag::nc);
    try {
      const dnnl::inner_product_forward::desc desc(dnnl::prop_kind::forward_inference, source, weights,
                                                   target);
      const dnnl::inner_product_forward::primitive_desc plan(desc, engine_);
      const dnnl::memory plain({{n_out, n_in}, type, Tag::oi}, engine_, const_cast<void*>(w.data));
      weights_ = dnnl::memory(plan.weights_desc(), engine_);
      dnnl::reorder(plain, weights_).execute(stream_, const_cast<dnnl::memory&>(plain), weights_);
      stream_.wait();
      source_ = dnnl::memory(source, engine_);
      target_ = dnnl::memory(target, engine_);
      product_.emplace(plan);
    } catch (const dnnl::error&) {
      product_.reset();
    }
  }

  bool supported() const noexcept { return product_.has_value(); }
  std::size_t d_in() const noexcept { return d_in_; }
  std::size_t d_out() const noexcept { return d_out_; }
  /// The input of later runs, rounded as the weights are; `x` has n_tokens rows, prepared for their dtype.
  void set_input(const PreparedRows& x) noexcept {
    void* const source = source_.get_data_handle();
    for (std::size_t t = 0; t < x.size(); ++t) {
      const std::size_t at = t * d_in_;
      if (dtype_ == DType::kQ8) {
        std::copy_n(x.q8()[t].q, d_in_, static_cast<std::int8_t*>(source) + at);
      } else if (dtype_ == DType::kBf16) {
        std::transform(x.f32()[t], x.f32()[t] + d_in_, static_cast<std::uint16_t*>(source) + at, f32_to_bf16);
      } else {
        std::copy_n(x.f32()[t], d_in_, static_cast<float*>(source) + at);
      }
    }
  }
  /// [n_tokens, d_out]
  const float* y() const noexcept { return static_cast<const float*>(target_.get_data_handle()); }

  void run() {
    product_->execute(stream_,
                      {{DNNL_ARG_SRC, source_}, {DNNL_ARG_WEIGHTS, weights_}, {DNNL_ARG_DST, target_}});
    stream_.wait();
  }

 private:
  static dnnl::memory::data_type element_type(DType dtype) noexcept {
    switch (dtype) {
      case DType::kF32:
        return dnnl::memory::data_type::f32;
      case DType::kBf16:
        return dnnl::memory::data_type::bf16;
      case DType::kQ8:
        return dnnl::memory::data_type::s8;
      case DType::kQ4:
        break;
    }
    return dnnl::memory::data_type::undef;
  }

  DType dtype_;
  std::size_t d_in_;
  std::size_t d_out_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  dnnl::memory weights_;
  dnnl::memory source_;
  dnnl::memory target_;
  std::optional<dnnl::inner_product_forward> product_;
};

/// Compares the first outputs of every row with the specification, for the weights that `product` was made
/// from and the rows `x`, as many as it takes, which stay its input. Both get what is exact in their dtype,
/// so that only the order of the sums differs, and of q8 nothing but the scales.
inline void check_onednn(Exec& exec, OneDnnDense& product, const WeightView& w, ConstRows x,
                         const std::string& name) {
  const DenseKernels& scalar = dense_kernels(Isa::kScalar);
  const std::size_t n_checked = std::min<std::size_t>(w.rows, 64);
  std::vector<float> input;
  for (std::size_t t = 0; t < x.n; ++t) input.insert(input.end(), x.row(t), x.row(t) + w.cols);
  if (w.dtype == DType::kBf16) {
    for (float& v : input) v = bf16_to_f32(f32_to_bf16(v));
  }
  const Workspace::Scope scope(exec.ws);
  const PreparedRows prepared(exec, scalar, w.dtype, ConstRows(input.data(), x.n, w.cols, w.cols));
  std::vector<float> expected(x.n * n_checked), found(expected.size());
  dot_rows(scalar, w, 0, n_checked, prepared, expected.data(), n_checked);
  product.set_input(prepared);
  product.run();
  for (std::size_t t = 0; t < x.n; ++t) {
    for (std::size_t r = 0; r < n_checked; ++r) {
      float scale = 1.0F;
      if (w.dtype == DType::kQ8) {
        scale = *reinterpret_cast<const float*>(w.row_scale(r)) * prepared.q8()[t].scale;
      }
      found[t * n_checked + r] = product.y()[t * w.rows + r] * scale;
    }
  }
  require(difference(found, expected) < (w.dtype == DType::kQ8 ? 1e-6 : 1e-4), name);
}

}  // namespace terrace::bench
