// SPDX-License-Identifier: Apache-2.0
#include "sparse/sparse_qkv.h"

#include <doctest/doctest.h>

#include <optional>

#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

struct Options {
  DType dtype = DType::kF32;
  std::size_t d_in = 256;
  std::size_t n_modules = 4;
  std::size_t d_module = 64;
  std::size_t n_steps = 3;
  bool share_qk = false;
  VConcat v_concat = VConcat::kNone;
};

struct Case {
  Case(const DenseKernels& kernels, const Options& o)
      : options(o),
        width(o.n_modules * o.d_module),
        gate(o.dtype, o.n_modules, o.d_in, 1),
        shared_bias(random_floats(width, 2)),
        proj(o.dtype, o.d_module, o.d_in, 3, 0.2F),
        q(o.dtype, o.d_module, taps(3) * o.d_module, 4, 0.2F),
        k(o.dtype, o.d_module, taps(3) * o.d_module, 5, 0.2F),
        v(o.dtype, o.d_module, taps(1) * o.d_module * (o.v_concat == VConcat::kNone ? 1 : 2), 6, 0.2F),
        q_bias(random_floats(o.d_module, 7)),
        k_bias(random_floats(o.d_module, 8)),
        v_bias(random_floats(o.d_module, 9)) {
    const auto conv = [&](const StoredWeight& w, const Vector& b, std::size_t kernel_size) {
      return LocallyConvDense(kernels, w.view(), b.data(), o.n_modules, kernel_size, o.n_steps);
    };
    layer.emplace(FactoredDense(kernels, gate.view(), proj.view(), shared_bias.data()), conv(q, q_bias, 3),
                  o.share_qk ? LocallyConvDense() : conv(k, k_bias, 3), conv(v, v_bias, 1), o.v_concat,
                  layout);
  }

  std::size_t taps(std::size_t kernel_size) const {
    return options.n_modules == 1 ? 1 : kernel_size * options.n_steps;
  }

  /// q, k and v side by side in one row.
  LayerUnderTest under_test() const {
    return {[this](Exec& exec, ConstRows x, float* state, Rows y) {
              const auto part = [&](std::size_t i) { return Rows{y.data + i * width, y.n, width, y.stride}; };
              layer->forward(exec, x, state, part(0), part(1), part(2));
            },
            options.d_in, 3 * width, layout.size()};
  }

  Matrix expected(const Matrix& x) const {
    const Options& o = options;
    const Matrix m = naive_factored(x, gate.values(), proj.values(), shared_bias);
    Matrix join = m;
    if (o.v_concat != VConcat::kNone) {
      join = Matrix(x.rows, 2 * width);
      const std::size_t part = o.v_concat == VConcat::kFixed ? o.d_module : width;
      for (std::size_t t = 0; t < x.rows; ++t) {
        for (std::size_t c = 0; c < width; ++c) {
          join(t, c / part * 2 * part + c % part) = m(t, c);
          join(t, (c / part * 2 + 1) * part + c % part) = x(t, c);
        }
      }
    }
    const Matrix qs = naive_conv(m, q.values(), q_bias, o.n_modules, 3, o.n_steps);
    const Matrix ks = o.share_qk ? qs : naive_conv(m, k.values(), k_bias, o.n_modules, 3, o.n_steps);
    const Matrix vs = naive_conv(join, v.values(), v_bias, o.n_modules, 1, o.n_steps);
    Matrix all(x.rows, 3 * width);
    for (std::size_t t = 0; t < x.rows; ++t) {
      for (std::size_t c = 0; c < width; ++c) {
        all(t, c) = qs(t, c);
        all(t, width + c) = ks(t, c);
        all(t, 2 * width + c) = vs(t, c);
      }
    }
    return all;
  }

  Options options;
  std::size_t width;
  StoredWeight gate;
  Vector shared_bias;
  StoredWeight proj;
  StoredWeight q;
  StoredWeight k;
  StoredWeight v;
  Vector q_bias;
  Vector k_bias;
  Vector v_bias;
  RecurrentLayout layout;
  std::optional<SparseQkv> layer;
};

std::vector<Options> all_options(DType dtype) {
  std::vector<Options> result;
  for (const bool share_qk : {false, true}) {
    for (const VConcat v_concat : {VConcat::kNone, VConcat::kOriginal, VConcat::kFixed}) {
      result.push_back({.dtype = dtype, .share_qk = share_qk, .v_concat = v_concat});
      result.push_back({.dtype = dtype,
                        .d_in = 64,
                        .n_modules = 1,
                        .d_module = 64,
                        .share_qk = share_qk,
                        .v_concat = v_concat});
      result.push_back({.dtype = dtype,
                        .d_in = 128,
                        .n_modules = 2,
                        .n_steps = 1,
                        .share_qk = share_qk,
                        .v_concat = v_concat});
    }
  }
  result.push_back({.dtype = dtype, .d_in = 320, .n_modules = 2, .n_steps = 5});  // wider in than out
  return result;
}

TEST_CASE("SparseQkv: every option, dtype and ISA agrees with the formula in double") {
  TestExec exec(2);
  for (const DenseKernels* kernels : available_dense_kernels()) {
    for (const DType dtype : kAllDtypes) {
      for (const Options& options : all_options(dtype)) {
        CAPTURE(kernels->name);
        CAPTURE(dtype_name(dtype));
        CAPTURE(options.n_modules);
        CAPTURE(options.share_qk);
        CAPTURE(static_cast<int>(options.v_concat));
        const Case c(*kernels, options);
        const std::size_t n = 5;
        const auto x = random_floats(n * options.d_in, 10);
        CHECK(relative_difference(run_layer(exec.get(), c.under_test(), x, {n}),
                                  c.expected(Matrix(n, options.d_in, x))) < 2 * tolerance(dtype));
      }
    }
  }
}

TEST_CASE("SparseQkv: any cut into calls and any number of threads gives the same bits and the same state") {
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kQ8}) {
    for (const Options& options : all_options(dtype)) {
      CAPTURE(options.n_modules);
      CAPTURE(options.share_qk);
      const Case c(dense_kernels(isa_from_environment()), options);
      check_same_bits(c.under_test(), random_floats(4 * options.d_in, 11));
    }
  }
}

TEST_CASE("SparseQkv: q, k and v share one tail of m; a join has its own") {
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  CHECK(Case(kernels, {}).layout.size() == 2 * 256);
  CHECK(Case(kernels, {.v_concat = VConcat::kFixed}).layout.size() == 2 * 256 + 2 * 512);
  CHECK(Case(kernels, {.d_in = 64, .n_modules = 1}).layout.size() == 0);
}

TEST_CASE("SparseQkv: with shared q and k, k may be left out") {
  const Case c(dense_kernels(isa_from_environment()), {.share_qk = true});
  const auto x = random_floats(256, 12);
  std::vector<float> state(c.layout.size());
  std::vector<float> q(256);
  std::vector<float> v(256);
  TestExec exec(1);
  c.layer->forward(exec.get(), {x.data(), 1, 256, 256}, state.data(), {q.data(), 1, 256, 256}, {},
                   {v.data(), 1, 256, 256});
  const Matrix expected = c.expected(Matrix(1, 256, x));
  for (std::size_t i = 0; i < 256; ++i) CHECK(q[i] == doctest::Approx(expected(0, i)).epsilon(1e-4));
}

TEST_CASE("SparseQkv: parts that do not fit each other are refused") {
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  const StoredWeight proj(DType::kF32, 8, 32, 1);
  const StoredWeight narrow(DType::kF32, 8, 3 * 3 * 8, 2);
  const StoredWeight wide(DType::kF32, 8, 3 * 3 * 16, 3);
  const StoredWeight values(DType::kF32, 8, 3 * 8, 4);
  const std::vector<float> gate(4 * 32);
  const FactoredDense shared(kernels, f32_view(gate, 4), proj.view(), nullptr);
  const LocallyConvDense q(kernels, narrow.view(), nullptr, 4, 3, 3);
  const LocallyConvDense too_wide(kernels, wide.view(), nullptr, 4, 3, 3);
  const LocallyConvDense v(kernels, values.view(), nullptr, 4, 1, 3);
  RecurrentLayout layout;
  expect_error(ErrorCode::kBadArgument, "convolution of q reads 4 modules, 64 channels",
               [&] { SparseQkv(shared, too_wide, q, v, VConcat::kNone, layout); });
  expect_error(ErrorCode::kBadArgument, "convolution of v",
               [&] { SparseQkv(shared, q, q, v, VConcat::kFixed, layout); });
  expect_error(ErrorCode::kBadArgument, "must all be given",
               [&] { SparseQkv(shared, {}, q, v, VConcat::kNone, layout); });
}

TEST_CASE("SparseAttentionOutput: multiplicative layer, convolution, or both") {
  TestExec exec(2);
  for (const DType dtype : kAllDtypes) {
    const DenseKernels& kernels = dense_kernels(isa_from_environment());
    const std::size_t d = 256;
    const StoredWeight proj(dtype, 64, d, 1, 0.2F);
    const StoredWeight taps(dtype, 64, 9 * 64, 2, 0.2F);
    const auto gate = random_floats(4 * d, 3);
    const auto bias = random_floats(d, 4);
    const FactoredDense mult(kernels, f32_view(gate, 4), proj.view(), bias.data());
    const LocallyConvDense conv(kernels, taps.view(), bias.data(), 4, 3, 3);
    const auto x = random_floats(4 * d, 5);
    const Matrix in(4, d, x);
    const auto check = [&](const FactoredDense& m, const LocallyConvDense& c, const Matrix& expected,
                           std::size_t state) {
      RecurrentLayout layout;
      const SparseAttentionOutput layer(m, c, layout);
      CHECK(layout.size() == state);
      const LayerUnderTest under_test{
          [&](Exec& e, ConstRows rows, float* block, Rows y) { layer.forward(e, rows, block, y); }, d, d,
          state};
      CHECK(relative_difference(run_layer(exec.get(), under_test, x, {4}), expected) < 2 * tolerance(dtype));
      check_same_bits(under_test, x);
    };
    const Matrix multiplied = naive_factored(in, Matrix(4, d, gate), proj.values(), bias);
    const Vector conv_bias(bias.begin(), bias.begin() + 64);
    check(mult, {}, multiplied, 0);
    check({}, conv, naive_conv(in, taps.values(), conv_bias, 4, 3, 3), 2 * d);
    check(mult, conv, naive_conv(multiplied, taps.values(), conv_bias, 4, 3, 3), 2 * d);
  }
  RecurrentLayout layout;
  expect_error(ErrorCode::kBadArgument, "neither", [&] { SparseAttentionOutput({}, {}, layout); });
}

}  // namespace
}  // namespace terrace::test
