// SPDX-License-Identifier: Apache-2.0
#include "attention/self_attention.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "tests/support/allocation_counter.h"
#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/naive_attention.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr std::size_t kHeads = 2, kDk = 10, kDv = 6;

SelfAttentionConfig config(bool share_qk, std::size_t chunk_len = 0, std::size_t before = 0,
                           std::size_t after = 0) {
  SelfAttentionConfig c{kHeads, kDk, kDv};
  c.share_qk = share_qk;
  c.chunk_len = chunk_len;
  c.n_chunks_before = before;
  c.n_chunks_after = after;
  return c;
}

struct Sequence {
  std::vector<float> q, k, v;
  explicit Sequence(std::size_t n, std::uint32_t seed = 1)
      : q(random_floats(n * kHeads * kDk, seed, 2.0F)),
        k(random_floats(n * kHeads * kDk, seed + 1, 2.0F)),
        v(random_floats(n * kHeads * kDv, seed + 2)) {}
  ConstRows q_rows() const { return rows_of(q, kHeads * kDk); }
  ConstRows k_rows() const { return rows_of(k, kHeads * kDk); }
  ConstRows v_rows() const { return rows_of(v, kHeads * kDv); }
  std::size_t n() const { return q_rows().n; }
};

std::vector<float> run_full(const Exec& exec, const SelfAttention& layer, const Sequence& s,
                            std::size_t n_real, bool causal) {
  std::vector<float> y(s.v.size());
  layer.full(exec, s.q_rows(), s.k_rows(), s.v_rows(), n_real, causal, rows_of(y, kHeads * kDv));
  return y;
}

/// The definition, one row at a time; every key met again counts again.
Matrix naive_full(const SelfAttentionConfig& c, const Sequence& s, std::size_t n_real, bool causal) {
  const std::size_t n = s.n(), len = c.chunk_len ? c.chunk_len : n, n_chunks = n / len;
  const Matrix q(n, kHeads * kDk, s.q), v(n, kHeads * kDv, s.v);
  const Matrix k = c.share_qk ? naive_length_normalized(q, kDk) : Matrix(n, kHeads * kDk, s.k);
  Matrix y(n, kHeads * kDv);
  for (std::size_t t = 0; t < n; ++t) {
    std::vector<std::size_t> keys;
    for (std::size_t u = 0; u < 1 + c.n_chunks_before + c.n_chunks_after; ++u) {
      const std::size_t chunk = (t / len + u + n_chunks * c.n_chunks_before - c.n_chunks_before) % n_chunks;
      for (std::size_t i = 0; i < len; ++i) keys.push_back(chunk * len + i);
    }
    for (std::size_t h = 0; h < kHeads; ++h) {
      Matrix some_k(keys.size(), kDk), some_v(keys.size(), kDv), one(1, kDk);
      for (std::size_t i = 0; i < keys.size(); ++i) {
        for (std::size_t d = 0; d < kDk; ++d) some_k(i, d) = k(keys[i], h * kDk + d);
        for (std::size_t d = 0; d < kDv; ++d) some_v(i, d) = v(keys[i], h * kDv + d);
      }
      for (std::size_t d = 0; d < kDk; ++d) one(0, d) = q(t, h * kDk + d);
      const Matrix out = naive_attention_head(
          one, some_k, some_v, 1 / std::sqrt(1.0 * kDk), [&](std::size_t, std::size_t i) {
            const std::size_t at = keys[i];
            return -(causal && at > t && at < n_real ? 1e9 : 0.0) -
                   (c.share_qk && at == t && at < n_real ? 1e5 : 0.0) - (at >= n_real ? 1e9 : 0.0);
          });
      for (std::size_t d = 0; d < kDv; ++d) y(t, h * kDv + d) = out(0, d);
    }
  }
  return y;
}

TEST_CASE("whole sequences agree with the definition, chunked or not, with more queries than a block holds") {
  for (const bool share : {false, true}) {
    for (const bool causal : {false, true}) {
      for (const auto& c :
           {config(share), config(share, 96, 1), config(share, 32, 2, 1), config(share, 288, 0, 1)}) {
        const Sequence s(576);
        const std::size_t n_real = causal ? 576 : 500;
        const Matrix all = naive_full(c, s, n_real, causal);
        const Matrix expected(
            n_real, all.cols,
            std::vector<float>(all.data.begin(),
                               all.data.begin() + static_cast<std::ptrdiff_t>(n_real * all.cols)));
        std::vector<float> first;
        for (const unsigned n_threads : {1U, 2U, 8U}) {
          TestExec exec(n_threads);
          auto y = run_full(exec.get(), SelfAttention(attention_kernels(isa_from_environment()), c), s,
                            n_real, causal);
          y.resize(n_real * kHeads * kDv);
          CAPTURE(share);
          CAPTURE(causal);
          CAPTURE(c.chunk_len);
          CHECK(relative_difference(y, expected) < 1e-5);
          if (first.empty()) first = y;
          CHECK(same_bits(first, y));
        }
      }
    }
  }
}

std::vector<float> run_steps(const Exec& exec, const SelfAttention& layer, const Sequence& s,
                             const std::vector<std::size_t>& calls, KvType type = KvType::kF32) {
  KvCache kv = layer.make_cache(type, s.n());
  std::vector<float> y(s.v.size());
  std::size_t t = 0;
  for (const std::size_t rows : calls) {
    layer.step(exec, kv, s.q_rows().slice(t, rows), s.k_rows().slice(t, rows), s.v_rows().slice(t, rows),
               rows_of(y, kHeads * kDv).slice(t, rows));
    t += rows;
  }
  return y;
}

TEST_CASE("with the default window steps are the rows of the causal whole-sequence form") {
  TestExec exec(2);
  const Sequence s(384);
  for (const bool share : {false, true}) {
    for (const auto& c : {config(share), config(share, 96, 1), config(share, 32, 2), config(share, 16)}) {
      const SelfAttention layer(attention_kernels(isa_from_environment()), c);
      const auto full = run_full(exec.get(), layer, s, 384, true);
      CAPTURE(c.chunk_len);
      CHECK(relative_difference(run_steps(exec.get(), layer, s, {384}), Matrix(384, kHeads * kDv, full)) <
            1e-5);
    }
  }
}

TEST_CASE("steps have the same bits for any cut, thread count and instruction set") {
  const Sequence s(300);
  for (const auto& [mem, drop] : {std::pair{0, 0}, {70, 30}, {128, 128}, {5, 2}}) {
    for (const KvType type : kKvTypes) {
      SelfAttentionConfig c = config(true, 16, 1);
      c.mem_len = mem;
      c.drop_len = drop;
      std::vector<float> expected;
      {
        TestExec one(1);
        const SelfAttention layer(attention_kernels(Isa::kScalar), c);
        expected = run_steps(one.get(), layer, s, std::vector<std::size_t>(300, 1), type);
      }
      const SelfAttention layer(attention_kernels(isa_from_environment()), c);
      for (const unsigned n_threads : {1U, 2U, 8U}) {
        TestExec exec(n_threads);
        for (const auto& cut :
             std::vector<std::vector<std::size_t>>{{300}, {1, 299}, {150, 1, 1, 148}, {33, 67, 200}}) {
          CHECK(same_bits(run_steps(exec.get(), layer, s, cut, type), expected));
        }
      }
    }
  }
}

TEST_CASE("a truncated sequence goes on with the window it would have had") {
  TestExec exec(1);
  SelfAttentionConfig c = config(true, 8, 1);
  c.mem_len = 20;
  c.drop_len = 7;
  const SelfAttention layer(attention_kernels(isa_from_environment()), c);
  const Sequence s(120), draft(30, 99);
  const auto expected = run_steps(exec.get(), layer, s, {120});
  KvCache kv = layer.make_cache(KvType::kF32, 200);
  std::vector<float> y(s.v.size()), ignored(draft.v.size());
  const Rows out = rows_of(y, kHeads * kDv);
  for (std::size_t t = 0; t < 120; t += 10) {
    layer.step(exec.get(), kv, s.q_rows().slice(t, 10), s.k_rows().slice(t, 10), s.v_rows().slice(t, 10),
               out.slice(t, 10));
    layer.step(exec.get(), kv, draft.q_rows(), draft.k_rows(), draft.v_rows(),
               rows_of(ignored, kHeads * kDv));
    kv.truncate(t + 10);
  }
  CHECK(same_bits(y, expected));
}

TEST_CASE("the memory window is the buffer of Trax as a function of time") {
  for (const auto& [mem, drop] : {std::pair{5UL, 2UL}, {4UL, 4UL}, {1UL, 1UL}, {16UL, 5UL}}) {
    const MemoryWindow window{mem, drop};
    std::size_t begin = 0;
    for (std::size_t t = 0; t < 100; ++t) {
      if (t - begin + 1 > mem) begin += drop;
      CHECK(window.begin(t) == begin);
    }
  }
  CHECK(MemoryWindow{}.begin(1000000) == 0);
}

TEST_CASE("the promised workspace is enough and a step allocates nothing") {
  for (const unsigned n_threads : {1U, 2U, 8U}) {
    ThreadTeam team(n_threads);
    const ThreadTeam::Region region(team);
    for (const auto& c : {config(true), config(false, 96, 1), config(true, 32, 2, 1)}) {
      const SelfAttention layer(attention_kernels(isa_from_environment()), c);
      const Sequence s(576);
      Workspace ws(layer.workspace_bytes(576, 576, n_threads));
      const Exec exec{team, ws};
      run_full(exec, layer, s, 576, true);
      KvCache kv = layer.make_cache(KvType::kF32, 576);
      std::vector<float> y(s.v.size());
      const AllocationCounter counter;
      layer.step(exec, kv, s.q_rows(), s.k_rows(), s.v_rows(), rows_of(y, kHeads * kDv));
      CHECK(counter.allocations() == 0);
    }
  }
}

TEST_CASE("impossible configurations and lengths are refused") {
  const AttentionKernels& kernels = attention_kernels(Isa::kScalar);
  expect_error(ErrorCode::kBadConfig, "need a chunk_len",
               [&] { SelfAttention(kernels, config(true, 0, 1)); });
  SelfAttentionConfig c = config(true, 8, 1);
  c.mem_len = 4;
  c.drop_len = 5;
  expect_error(ErrorCode::kBadConfig, "drop_len (5) must not exceed mem_len (4)",
               [&] { SelfAttention(kernels, c); });
  TestExec exec(1);
  const SelfAttention layer(kernels, config(true, 8, 1));
  expect_error(ErrorCode::kBadArgument, "number of rows (12) must be a multiple of chunk_len (8)",
               [&] { run_full(exec.get(), layer, Sequence(12), 12, true); });
}

TEST_CASE("a whole sequence tells its rows and may be cancelled between passes") {
  // More than one pass: unchunked, so that the work grows with the square of the length.
  const SelfAttention layer(attention_kernels(isa_from_environment()), config(false, 0, 0));
  const Sequence s(5000);
  std::vector<float> y(s.v.size());
  TestExec exec(2);
  std::size_t rows = 0, ticks = 0;
  const auto run = [&](std::size_t limit) {
    layer.full(exec.get(), s.q_rows(), s.k_rows(), s.v_rows(), 5000, false, rows_of(y, kHeads * kDv),
               [&](std::size_t done) {
                 rows += done;
                 if (++ticks == limit) throw Error(ErrorCode::kCancelled, "cancelled here");
               });
  };
  run(0);
  CHECK(rows == 5000);
  CHECK(ticks > 2);
  rows = ticks = 0;
  expect_error(ErrorCode::kCancelled, "cancelled here", [&] { run(2); });
  CHECK(rows < 5000);
}

}  // namespace
}  // namespace terrace::test
