// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "engine/exec.h"
#include "engine/tensor.h"
#include "tests/support/kernel_tables.h"

namespace terrace::test {

/// A layer as the tests drive it: y = layer(x), with its state in a block of floats.
struct LayerUnderTest {
  std::function<void(Exec& exec, ConstRows x, float* state, Rows y)> forward;
  std::size_t d_in = 0;
  std::size_t d_out = 0;
  std::size_t state_size = 0;
};

/// A team with its workers held, and scratch memory.
class TestExec {
 public:
  explicit TestExec(unsigned n_threads) : team_(n_threads), region_(team_), ws_(std::size_t{1} << 28) {}
  Exec& get() noexcept { return exec_; }

 private:
  ThreadTeam team_;
  ThreadTeam::Region region_;
  Workspace ws_;
  Exec exec_{team_, ws_};
};

/// Outputs [T, d_out] for the rows of x [T, d_in], fed in calls of `calls` rows (their sum is T), from a zero
/// state. The rows of y lie `gap` floats apart; what is between them must stay untouched (checked).
std::vector<float> run_layer(Exec& exec, const LayerUnderTest& layer, const std::vector<float>& x,
                             const std::vector<std::size_t>& calls, std::size_t gap = 0);

/// All ways of cutting n rows into calls: 2^(n-1).
std::vector<std::vector<std::size_t>> all_cuts(std::size_t n);

/// Every cut of the rows of x, and 1, 2 and 8 threads, must give the same bits (and leave the same state).
void check_same_bits(const LayerUnderTest& layer, const std::vector<float>& x);

}  // namespace terrace::test
