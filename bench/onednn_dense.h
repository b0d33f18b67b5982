// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>

#include "engine/tensor.h"

namespace terrace::bench {

/// oneDNN's inner product, y_t = W x_t for `n_tokens` rows x_t, with the weights in the layout oneDNN
/// prefers: the yardstick for dense layers. Runs on OpenMP, so never inside a ThreadTeam::Region.
class OneDnnDense {
 public:
  /// Copies f32, bf16 or q8 weights (their scales left out: what remains is the integer product).
  /// Check `supported()` before use: some dtypes need a newer CPU or a newer oneDNN.
  explicit OneDnnDense(const WeightView& w, std::size_t n_tokens = 1) : d_in_(w.cols), d_out_(w.rows) {
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
  /// Input of the next run, row after row: f32, bf16 or int8 elements, as the weights are.
  void* x() noexcept { return source_.get_data_handle(); }
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

  std::size_t d_in_;
  std::size_t d_out_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  dnnl::memory weights_;
  dnnl::memory source_;
  dnnl::memory target_;
  std::optional<dnnl::inner_product_forward> product_;
};

}  // namespace terrace::bench
