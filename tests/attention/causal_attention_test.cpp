// SPDX-License-Identifier: Apache-2.0
#include "attention/causal_attention.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attention/full_attention.h"
#include "tests/support/allocation_counter.h"
#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/naive_attention.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr double kHidden = -std::numeric_limits<double>::infinity();

struct Shape {
  std::size_t n_heads, n_kv_heads, d_k, d_v;
};
constexpr Shape kShapes[] = {{1, 1, 1, 1}, {4, 4, 8, 8}, {6, 2, 5, 7}, {5, 1, 16, 16}, {2, 2, 64, 48}};

/// How far attention may be from its double version over what the cache keeps: q8 also rounds queries and
/// softmax weights to 14 bits, q4 weights to 8 (a step is 1/127 of the largest of a page).
constexpr double bound_of(KvType type) noexcept {
  switch (type) {
    case KvType::kQ4:
      return 3e-2;
    case KvType::kQ8:
      return 5e-4;
    default:
      return 5e-6;
  }
}

/// Projected rows of a sequence.
struct Sequence {
  Shape shape;
  std::size_t n;
  std::vector<float> q, k, v;

  Sequence(const Shape& s, std::size_t n_, std::uint32_t seed)
      : shape(s),
        n(n_),
        q(random_floats(n_ * s.n_heads * s.d_k, seed, 2.0F)),
        k(random_floats(n_ * s.n_kv_heads * s.d_k, seed + 1, 2.0F)),
        v(random_floats(n_ * s.n_kv_heads * s.d_v, seed + 2)) {}

  ConstRows q_rows() const { return rows_of(q, shape.n_heads * shape.d_k); }
  ConstRows k_rows() const { return rows_of(k, shape.n_kv_heads * shape.d_k); }
  ConstRows v_rows() const { return rows_of(v, shape.n_kv_heads * shape.d_v); }

  CausalAttention attention(Isa isa) const {
    return {attention_kernels(isa), shape.n_heads, shape.n_kv_heads, shape.d_k, shape.d_v};
  }
  /// The sequence fed in calls of the given sizes.
  std::vector<float> run(const Exec& exec, Isa isa, KvType type,
                         const std::vector<std::size_t>& calls) const {
    const CausalAttention layer = attention(isa);
    KvCache kv = layer.make_cache(type, n);
    std::vector<float> y(n * shape.n_heads * shape.d_v);
    std::size_t t = 0;
    for (const std::size_t rows : calls) {
      layer.step(exec, kv, q_rows().slice(t, rows), k_rows().slice(t, rows), v_rows().slice(t, rows),
                 rows_of(y, shape.n_heads * shape.d_v).slice(t, rows));
      t += rows;
    }
    REQUIRE(t == n);
    return y;
  }
  Matrix naive(bool causal, KvType type) const {
    return naive_attention(Matrix(n, shape.n_heads * shape.d_k, queries_for(type, q, shape.d_k)),
                           Matrix(n, shape.n_kv_heads * shape.d_k, kept_as(type, k, shape.d_k)),
                           Matrix(n, shape.n_kv_heads * shape.d_v, kept_as(type, v, shape.d_v)),
                           shape.n_heads, shape.n_kv_heads, 1.0 / std::sqrt(static_cast<double>(shape.d_k)),
                           [&](std::size_t t, std::size_t s) { return causal && s > t ? kHidden : 0.0; });
  }
};

TEST_CASE("causal attention agrees with a double version: multi-head, grouped, multi-query, every type") {
  TestExec exec(2);
  for (const Shape& shape : kShapes) {
    for (const std::size_t n : {1UL, 5UL, 128UL, 130UL, 300UL}) {
      const Sequence sequence(shape, n, static_cast<std::uint32_t>(n));
      for (const KvType type : kKvTypes) {
        const Matrix expected = sequence.naive(true, type);
        for (const Isa isa : {Isa::kScalar, isa_from_environment()}) {
          CHECK(relative_difference(sequence.run(exec.get(), isa, type, {n}), expected) < bound_of(type));
        }
      }
    }
  }
}

TEST_CASE("prefill gives the bits of one step per row, for every cut, thread count and instruction set") {
  for (const Shape& shape : kShapes) {
    const Sequence sequence(shape, 300, 5);
    std::vector<std::vector<std::size_t>> cuts{
        std::vector<std::size_t>(300, 1), {300}, {1, 299}, {127, 1, 1, 171}, {128, 128, 44},
        {63, 65, 2, 4, 8, 16, 142}};
    for (const KvType type : kKvTypes) {
      std::vector<float> expected;
      {
        TestExec one(1);
        expected = sequence.run(one.get(), Isa::kScalar, type, cuts[0]);
      }
      for (const unsigned n_threads : {1U, 2U, 8U}) {
        TestExec exec(n_threads);
        for (const auto& cut : cuts) {
          CAPTURE(n_threads);
          CAPTURE(cut.size());
          CHECK(same_bits(sequence.run(exec.get(), isa_from_environment(), type, cut), expected));
        }
      }
    }
  }
}

TEST_CASE("long contexts: work cut into segments gives the same bits as one thread") {
  // One KV head and thousands of slots: with threads the pages of a row are shared out and merged afterwards.
  const Sequence sequence({3, 1, 16, 16}, 5000, 3);
  for (const KvType type : {KvType::kF32, KvType::kQ8, KvType::kQ4}) {
    std::vector<float> expected;
    {
      TestExec one(1);
      expected = sequence.run(one.get(), isa_from_environment(), type, {4000, 995, 1, 1, 1, 1, 1});
    }
    for (const unsigned n_threads : {2U, 3U, 8U}) {
      TestExec exec(n_threads);
      CHECK(same_bits(sequence.run(exec.get(), isa_from_environment(), type, {5000}), expected));
      CHECK(same_bits(sequence.run(exec.get(), isa_from_environment(), type, {3000, 1999, 1}), expected));
    }
    CHECK(relative_difference(expected, sequence.naive(true, type)) <
          (type == KvType::kF32 ? 1e-5 : bound_of(type)));
  }
}

TEST_CASE("a step is append, then forward: same bits, same cache, whatever the rows and threads") {
  for (const Shape& shape : kShapes) {
    const Sequence sequence(shape, 300, 31);
    const std::size_t width = shape.n_heads * shape.d_v;
    for (const unsigned n_threads : {1U, 2U, 8U}) {
      TestExec exec(n_threads);
      for (const KvType type : kKvTypes) {
        CAPTURE(kv_type_name(type));
        CAPTURE(shape.n_heads);
        CAPTURE(n_threads);
        const CausalAttention layer = sequence.attention(isa_from_environment());
        KvCache stepped = layer.make_cache(type, 300), appended = layer.make_cache(type, 300);
        std::vector<float> y(300 * width), expected(300 * width);
        std::size_t t = 0;
        for (const std::size_t n : {1, 1, 14, 1, 3, 70, 1, 37, 1, 130, 1, 40}) {  // 300 in all
          const ConstRows q = sequence.q_rows().slice(t, n), k = sequence.k_rows().slice(t, n),
                          v = sequence.v_rows().slice(t, n);
          layer.step(exec.get(), stepped, q, k, v, rows_of(y, width).slice(t, n));
          appended.append(exec.get(), k, v);
          layer.forward(exec.get(), appended, q, rows_of(expected, width).slice(t, n));
          t += n;
        }
        CHECK(t == 300);
        CHECK(same_bits(y, expected));
        MemorySink of_steps, of_appends;
        stepped.save(of_steps);
        appended.save(of_appends);
        CHECK(std::ranges::equal(of_steps.bytes(), of_appends.bytes()));
      }
    }
  }
}

TEST_CASE("after truncate and fork a sequence goes on with the same bits") {
  const Sequence sequence({4, 2, 8, 8}, 400, 8);
  TestExec exec(2);
  for (const KvType type : kKvTypes) {
    const auto expected = sequence.run(exec.get(), isa_from_environment(), type, {400});
    const CausalAttention layer = sequence.attention(isa_from_environment());
    KvCache kv = layer.make_cache(type, 500);
    const auto feed = [&](KvCache& cache, std::size_t from, std::size_t rows) {
      cache.append(exec.get(), sequence.k_rows().slice(from, rows), sequence.v_rows().slice(from, rows));
    };
    feed(kv, 0, 300);
    feed(kv, 0, 57);  // a draft that is rejected
    kv.truncate(300);
    KvCache child = kv.fork();
    feed(kv, 100, 99);  // the parent goes elsewhere
    feed(child, 300, 100);
    std::vector<float> y(100 * 32);
    layer.forward(exec.get(), child, sequence.q_rows().slice(300, 100), rows_of(y, 32));
    CHECK(same_bits(y, std::vector<float>(expected.begin() + 300 * 32, expected.end())));
  }
}

TEST_CASE("full attention agrees with a double version and with any number of rows per call") {
  for (const Shape& shape : kShapes) {
    const Sequence sequence(shape, 290, 21);
    const Matrix expected = sequence.naive(false, KvType::kF32);
    std::vector<float> first;
    for (const unsigned n_threads : {1U, 2U, 8U}) {
      TestExec exec(n_threads);
      const FullAttention layer(attention_kernels(isa_from_environment()), shape.n_heads, shape.n_kv_heads,
                                shape.d_k, shape.d_v);
      KvCache kv = layer.make_cache(KvType::kF32, 290);
      std::vector<float> y(290 * shape.n_heads * shape.d_v), single(y.size());
      const Rows y_rows = rows_of(y, shape.n_heads * shape.d_v), single_rows = rows_of(single, y_rows.width);
      layer.forward(exec.get(), kv, sequence.q_rows(), y_rows);
      CHECK(y == std::vector<float>(y.size(), 0.0F));  // nothing to see
      kv.append(exec.get(), sequence.k_rows(), sequence.v_rows());
      layer.forward(exec.get(), kv, sequence.q_rows(), y_rows);
      for (std::size_t t = 0; t < 290; ++t) {
        layer.forward(exec.get(), kv, sequence.q_rows().slice(t, 1), single_rows.slice(t, 1));
      }
      CHECK(same_bits(single, y));
      CHECK(relative_difference(y, expected) < 5e-6);
      if (first.empty()) first = y;
      CHECK(same_bits(first, y));
    }
  }
}

TEST_CASE("a step allocates nothing, and the promised workspace is enough") {
  const Sequence sequence({8, 2, 16, 16}, 3000, 2);
  for (const unsigned n_threads : {1U, 2U, 8U}) {
    ThreadTeam team(n_threads);
    const ThreadTeam::Region region(team);
    const CausalAttention layer = sequence.attention(isa_from_environment());
    for (const std::size_t rows : {1UL, 3UL, 100UL}) {
      Workspace ws(layer.workspace_bytes(rows, 3000, n_threads));
      const Exec exec{team, ws};
      KvCache kv = layer.make_cache(KvType::kF32, 3000);
      std::vector<float> y(rows * 128);
      kv.append(exec, sequence.k_rows().slice(0, 3000 - rows), sequence.v_rows().slice(0, 3000 - rows));
      const AllocationCounter counter;
      layer.step(exec, kv, sequence.q_rows().slice(3000 - rows, rows),
                 sequence.k_rows().slice(3000 - rows, rows), sequence.v_rows().slice(3000 - rows, rows),
                 rows_of(y, 128));
      CHECK(counter.allocations() == 0);
      kv.truncate(rows);
      layer.forward(exec, kv, sequence.q_rows().slice(0, rows), rows_of(y, 128));
    }
    const FullAttention full(attention_kernels(isa_from_environment()), 8, 2, 16, 16);
    Workspace ws(full.workspace_bytes(3000, n_threads));
    const Exec exec{team, ws};
    KvCache kv = full.make_cache(KvType::kF32, 3000);
    kv.append(exec, sequence.k_rows(), sequence.v_rows());
    std::vector<float> y(600 * 128);
    full.forward(exec, kv, sequence.q_rows().slice(0, 600), rows_of(y, 128));
  }
}

TEST_CASE("heads that do not divide are refused") {
  expect_error(ErrorCode::kBadConfig, "number of heads (5) must be a multiple of the number of K/V heads (2)",
               [] { CausalAttention(attention_kernels(Isa::kScalar), 5, 2, 8, 8); });
}

}  // namespace
}  // namespace terrace::test
