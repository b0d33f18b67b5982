// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <functional>

#include "engine/feed_forward.h"
#include "engine/sru.h"
#include "sparse/expert_ffn.h"
#include "sparse/projection.h"
#include "sparse/sparse_ffn.h"
#include "sparse/sparse_qkv.h"
#include "tests/support/allocation_counter.h"
#include "tests/support/layer_runs.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr std::size_t kD = 256;
constexpr std::size_t kModules = 4;
constexpr std::size_t kRows = 5;

TEST_CASE("sparse layers: a forward call allocates nothing, for one token or several, in any dtype") {
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  const auto floats = random_floats(16 * kD, 1);
  const auto x = random_floats(kRows * kD, 2);
  std::vector<float> y(3 * kRows * kD);
  std::vector<float> state(16 * kD);
  TestExec exec(2);

  const auto check = [&](const char* name,
                         const std::function<void(ConstRows, const std::function<Rows(int)>&)>& run) {
    for (const std::size_t n : {std::size_t{1}, kRows}) {
      CAPTURE(name);
      CAPTURE(n);
      const std::function<Rows(int)> out = [&](int i) {
        return Rows{y.data() + static_cast<std::size_t>(i) * kRows * kD, n, kD, kD};
      };
      const AllocationCounter counter;
      run({x.data(), n, kD, kD}, out);
      CHECK(counter.allocations() == 0);
    }
  };

  for (const DType dtype : kAllDtypes) {
    CAPTURE(dtype_name(dtype));
    const StoredWeight square(dtype, kD, kD, 3);
    const StoredWeight proj(dtype, kD / kModules, kD, 4);
    const StoredWeight taps(dtype, kD / kModules, 9 * kD / kModules, 5);
    const StoredWeight narrow_taps(dtype, kD / kModules, 6 * kD / kModules, 6);
    const StoredWeight modules(dtype, kD, kD / kModules, 7);
    const StoredWeight local(dtype, kD, 3 * kD / kModules, 8);
    const StoredWeight up(dtype, 4 * kD, kD, 9);
    const StoredWeight down(dtype, kD, 4 * kD, 10);
    const StoredWeight low(dtype, kD / kModules, kD, 11);
    const StoredWeight high(dtype, kD, kD / kModules, 12);
    const StoredWeight units(dtype, 2 * kD, kD, 13);
    const StoredWeight router(dtype, 8, kD, 14);
    const StoredWeight gate(dtype, kModules, kD, 16);
    const StoredWeight cell(DType::kF32, 3 * kD / kModules, kD / kModules, 15);
    const float* const f = floats.data();

    const FactoredDense factored(kernels, gate.view(), proj.view(), f);
    const LocallyConvDense conv(kernels, taps.view(), f, kModules, 3, 3);
    const LocallyConvDense join(kernels, narrow_taps.view(), f, kModules, 1, 3);
    for (const Projection& projection :
         {Projection(Linear(kernels, square.view(), f)), Projection(factored),
          Projection(MultModularDense(kernels, gate.view(), proj.view(), modules.view(), f)),
          Projection(LocallyConnectedDense(kernels, local.view(), f, kModules, 3)),
          Projection(LowRankDense(Linear(kernels, low.view(), f), Linear(kernels, high.view(), f)))}) {
      check("projection", [&](ConstRows in, const auto& out) { projection.forward(exec.get(), in, out(0)); });
    }

    RecurrentLayout layout;
    const SparseQkv qkv(factored, conv, conv, join, VConcat::kFixed, layout);
    const SparseAttentionOutput output(factored, conv, layout);
    const SruBranch sru(Norm(kernels, kD, f, f, true, 1e-6F), Linear(kernels, low.view(), f),
                        {SruCell(Linear(kernels, cell.view(), f))}, Linear(kernels, high.view(), f), layout);
    REQUIRE(layout.size() <= state.size());
    check("qkv", [&](ConstRows in, const auto& out) {
      qkv.forward(exec.get(), in, state.data(), out(0), out(1), out(2));
    });
    check("output",
          [&](ConstRows in, const auto& out) { output.forward(exec.get(), in, state.data(), out(0)); });
    check("sru",
          [&](ConstRows in, const auto& out) { sru.forward_add(exec.get(), in, state.data(), out(0)); });

    const SparseFfn sparse(kernels, Controller(kernels, low.view(), modules.view(), f, 8), units.view(), f,
                           true);
    const ExpertFfn experts(kernels, {router.view(), f, units.view(), f, router.view(), f}, false, true);
    const FeedForward dense(Linear(kernels, up.view(), f), Linear(kernels, down.view(), f),
                            Linear(kernels, up.view(), nullptr), Activation::kGelu);
    check("sparse ffn", [&](ConstRows in, const auto& out) { sparse.forward(exec.get(), in, out(0)); });
    check("expert ffn", [&](ConstRows in, const auto& out) { experts.forward(exec.get(), in, out(0), 2); });
    check("dense ffn", [&](ConstRows in, const auto& out) { dense.forward(exec.get(), in, out(0)); });
  }
}

}  // namespace
}  // namespace terrace::test
