// SPDX-License-Identifier: Apache-2.0
#include "attention/lsh_attention.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <utility>
#include <vector>

#include "attention/self_attention.h"
#include "attention/shared_qk.h"
#include "tests/support/allocation_counter.h"
#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/naive_attention.h"
#include "tests/support/stored_weight.h"

namespace terrace::test {
namespace {

constexpr std::size_t kHeads = 3, kDk = 9, kDv = 5;

/// An LSH layer with random rotations, and rows for it.
struct Layer {
  LshConfig config;
  std::size_t n_rotations;
  std::vector<float> rotations;

  explicit Layer(const LshConfig& c)
      : config(c),
        n_rotations(LshBuckets{c.n_buckets}.n_rotations()),
        rotations(random_floats(kHeads * c.n_hashes * n_rotations * kDk, 77)) {}
  LshAttention attention(Isa isa = isa_from_environment()) const {
    return LshAttention(attention_kernels(isa), config, rotations.data(), n_rotations);
  }
};

LshConfig config(std::vector<std::uint32_t> n_buckets, std::size_t n_hashes, std::size_t chunk_len,
                 std::size_t before, std::size_t mem_len, std::size_t drop_len) {
  LshConfig c{kHeads, kDk, kDv};
  c.n_buckets = std::move(n_buckets);
  c.n_hashes = n_hashes;
  c.chunk_len = chunk_len;
  c.n_chunks_before = before;
  c.mem_len = mem_len;
  c.drop_len = drop_len;
  return c;
}

std::vector<LshConfig> step_configs() {
  return {config({4, 2}, 2, 4, 1, 64, 16), config({8}, 1, 8, 1, 50, 50), config({2}, 1, 1, 0, 9, 2),
          config({2, 2}, 3, 2, 2, 40, 7),  config({16}, 2, 1, 0, 30, 1), config({4}, 2, 64, 1, 2048, 256)};
}

struct Sequence {
  std::vector<float> qk, v;
  explicit Sequence(std::size_t n, std::uint32_t seed = 1)
      : qk(random_floats(n * kHeads * kDk, seed, 2.0F)), v(random_floats(n * kHeads * kDv, seed + 1)) {}
  ConstRows qk_rows() const { return rows_of(qk, kHeads * kDk); }
  ConstRows v_rows() const { return rows_of(v, kHeads * kDv); }
  std::size_t n() const { return qk_rows().n; }
};

std::vector<float> run_steps(const Exec& exec, const LshAttention& layer, const Sequence& s,
                             const std::vector<std::size_t>& calls, KvType type = KvType::kF32) {
  LshState state = layer.make_state(type, s.n());
  std::vector<float> y(s.v.size());
  std::size_t t = 0;
  for (const std::size_t rows : calls) {
    layer.step(exec, state, s.qk_rows().slice(t, rows), s.v_rows().slice(t, rows),
               rows_of(y, kHeads * kDv).slice(t, rows));
    t += rows;
  }
  return y;
}

/// Trax's rule word for word, on a buffer of mem_len places: the places with the highest priorities.
class LiteralRule {
 public:
  LiteralRule(const LshConfig& c, std::uint32_t n_buckets)
      : config_(c), n_buckets_(n_buckets), ids_(c.n_hashes, std::vector<long>(c.mem_len, 0)) {}

  /// Puts a row with these buckets into the buffer; returns the rows (numbered from the start) that it
  /// attends to.
  std::vector<std::uint32_t> next(const std::vector<std::uint32_t>& buckets) {
    const long mem = static_cast<long>(config_.mem_len), drop = static_cast<long>(config_.drop_len);
    if (end_ + 1 > mem) {
      for (auto& round : ids_) {
        std::rotate(round.begin(), round.begin() + drop, round.end());
        std::fill(round.end() - drop, round.end(), 0);
      }
      end_ -= drop;
      dropped_ += drop;
    }
    const long at = end_++;
    for (std::size_t r = 0; r < ids_.size(); ++r) {
      ids_[r][static_cast<std::size_t>(at)] = static_cast<long>(r * n_buckets_ + buckets[r]);
    }
    std::vector<std::pair<long, long>> by_priority;
    for (long i = 0; i < mem; ++i) {
      const bool same = std::any_of(ids_.begin(), ids_.end(), [&](const auto& round) {
        return round[static_cast<std::size_t>(i)] == round[static_cast<std::size_t>(at)];
      });
      by_priority.emplace_back((i > at + 1 ? -(mem + i) : i) + (same ? mem : 0), i);
    }
    std::stable_sort(by_priority.begin(), by_priority.end());
    const std::size_t n = config_.n_hashes * config_.chunk_len * (1 + config_.n_chunks_before);
    if (n < by_priority.size())
      by_priority.erase(by_priority.begin(), by_priority.end() - static_cast<std::ptrdiff_t>(n));
    std::vector<std::uint32_t> rows;
    for (const auto& [priority, i] : by_priority) {
      if (i <= at)
        rows.push_back(static_cast<std::uint32_t>(dropped_ + i));  // later places are hidden by 1e9
    }
    std::sort(rows.begin(), rows.end());
    if (rows.size() > 1 && rows.back() == dropped_ + at) rows.pop_back();  // itself is hidden by 1e5
    return rows;
  }

 private:
  LshConfig config_;
  std::size_t n_buckets_;
  std::vector<std::vector<long>> ids_;
  long end_ = 0, dropped_ = 0;
};

TEST_CASE(
    "the slots found through bucket lists are those of the literal priority rule, with drops and the empty "
    "slot") {
  TestExec exec(1);
  std::size_t n_selected = 0;
  for (const LshConfig& c : step_configs()) {
    for (std::uint32_t seed = 0; seed < 6; ++seed) {
      const Layer layer(c);
      const LshAttention attention = layer.attention();
      const LshHash hash(attention_kernels(isa_from_environment()), {c.n_buckets}, kHeads, c.n_hashes, kDk,
                         layer.rotations.data());
      const Sequence s(160, seed);
      LshState state = attention.make_state(KvType::kF32, 160);
      std::vector<LiteralRule> rules(kHeads, LiteralRule(c, hash.buckets().total()));
      std::vector<float> y(kHeads * kDv), scratch(hash.scratch_floats());
      for (std::size_t t = 0; t < 160; ++t) {
        attention.step(exec.get(), state, s.qk_rows().slice(t, 1), s.v_rows().slice(t, 1),
                       rows_of(y, kHeads * kDv));
        for (std::size_t h = 0; h < kHeads; ++h) {
          std::vector<std::uint32_t> ids(c.n_hashes);
          hash.hash(h, s.qk_rows().row(t) + h * kDk, ids.data(), scratch.data());
          const auto expected = rules[h].next(ids);
          CAPTURE(t);
          CAPTURE(c.mem_len);
          REQUIRE(attention.selected(state, h, t) == expected);
          n_selected += expected.size();
        }
      }
    }
  }
  CHECK(n_selected > 10000);
}

TEST_CASE("steps have the same bits for any cut, thread count and instruction set") {
  const Sequence s(150);
  for (const KvType type : kKvTypes) {
    CAPTURE(kv_type_name(type));
    for (const LshConfig& c : step_configs()) {
      const Layer layer(c);
      std::vector<float> expected;
      {
        TestExec one(1);
        expected =
            run_steps(one.get(), layer.attention(Isa::kScalar), s, std::vector<std::size_t>(150, 1), type);
      }
      for (const unsigned n_threads : {1U, 2U, 8U}) {
        TestExec exec(n_threads);
        for (const auto& cut : std::vector<std::vector<std::size_t>>{{150}, {1, 149}, {50, 1, 99}}) {
          CHECK(same_bits(run_steps(exec.get(), layer.attention(), s, cut, type), expected));
        }
      }
    }
  }
}

TEST_CASE("a step over bf16 and q8 rows is attention over what rounding keeps; q4 is kept as q8") {
  TestExec exec(2);
  const std::size_t n = 120;
  const Sequence s(n);
  const Layer layer(config({4}, 2, 64, 1, 2048, 256));  // room for every slot
  const AttentionKernels& kernels = attention_kernels(Isa::kScalar);
  for (const KvType type : kKvTypes) {
    CAPTURE(kv_type_name(type));
    std::vector<float> keys(s.qk.size());
    for (std::size_t at = 0; at < keys.size(); at += kDk) {
      write_shared_key(kernels, s.qk.data() + at, kDk, keys.data() + at);
    }
    keys = kept_as(SlotRows::stored_type(type), std::move(keys), kDk);
    const auto values = kept_as(SlotRows::stored_type(type), s.v, kDv);
    Matrix expected(n, kHeads * kDv);
    for (std::size_t t = 0; t < n; ++t) {
      for (std::size_t h = 0; h < kHeads; ++h) {
        std::vector<double> weights;
        for (std::size_t slot = 0; slot < std::max<std::size_t>(t, 1); ++slot) {
          double dot = 0;
          for (std::size_t d = 0; d < kDk; ++d) {
            dot += double{s.qk_rows().row(t)[h * kDk + d]} * keys[(slot * kHeads + h) * kDk + d];
          }
          weights.push_back(std::exp(dot / std::sqrt(double{kDk})));
        }
        const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
        for (std::size_t d = 0; d < kDv; ++d) {
          for (std::size_t slot = 0; slot < weights.size(); ++slot) {
            expected(t, h * kDv + d) += weights[slot] / sum * values[(slot * kHeads + h) * kDv + d];
          }
        }
      }
    }
    CHECK(relative_difference(run_steps(exec.get(), layer.attention(), s, {n}, type), expected) < 5e-6);
  }
}

TEST_CASE("with room for every slot a step is plain shared-QK attention") {
  TestExec exec(2);
  const Sequence s(120);
  SelfAttentionConfig plain{kHeads, kDk, kDv};
  plain.share_qk = true;
  const SelfAttention reference(attention_kernels(isa_from_environment()), plain);
  KvCache kv = reference.make_cache(KvType::kF32, 120);
  std::vector<float> expected(s.v.size());
  reference.step(exec.get(), kv, s.qk_rows(), {}, s.v_rows(), rows_of(expected, kHeads * kDv));
  const Layer layer(config({4}, 2, 64, 1, 2048, 256));
  CHECK(relative_difference(run_steps(exec.get(), layer.attention(), s, {120}),
                            Matrix(120, kHeads * kDv, expected)) < 5e-6);
}

TEST_CASE("a state that attends to all gives exact attention over what is remembered, whatever the budget") {
  TestExec exec(2);
  const Sequence s(120);
  SelfAttentionConfig plain{kHeads, kDk, kDv};
  plain.share_qk = true;
  plain.mem_len = 40;
  plain.drop_len = 8;
  const SelfAttention reference(attention_kernels(isa_from_environment()), plain);
  KvCache kv = reference.make_cache(KvType::kF32, 120);
  std::vector<float> expected(s.v.size());
  reference.step(exec.get(), kv, s.qk_rows(), {}, s.v_rows(), rows_of(expected, kHeads * kDv));
  const Layer layer(config({4}, 2, 4, 0, 40, 8));  // a budget of 8 slots
  for (const std::size_t cut : {std::size_t{1}, std::size_t{50}, std::size_t{120}}) {
    LshState state = layer.attention().make_state(KvType::kF32, 120);
    state.attend_all();
    std::vector<float> y(s.v.size());
    const Rows rows = rows_of(y, kHeads * kDv);
    for (std::size_t begin = 0; begin < 120; begin += cut) {
      const std::size_t n = std::min(cut, 120 - begin);
      layer.attention().step(exec.get(), state, s.qk_rows().slice(begin, n), s.v_rows().slice(begin, n),
                             rows.slice(begin, n));
      state = state.fork();  // keeps the setting
    }
    CHECK(relative_difference(y, Matrix(120, kHeads * kDv, expected)) < 5e-6);
  }
}

TEST_CASE("one round in one chunk is plain shared-QK attention under the same mask") {
  TestExec exec(2);
  const Sequence s(300);
  SelfAttentionConfig plain{kHeads, kDk, kDv};
  plain.share_qk = true;
  const SelfAttention reference(attention_kernels(isa_from_environment()), plain);
  for (const bool causal : {false, true}) {
    const std::size_t n_real = causal ? 300 : 211;
    std::vector<float> expected(s.v.size()), y(s.v.size());
    reference.full(exec.get(), s.qk_rows(), {}, s.v_rows(), n_real, causal, rows_of(expected, kHeads * kDv));
    const Layer layer(config({8}, 1, 300, 0, 2048, 256));
    layer.attention().full(exec.get(), s.qk_rows(), s.v_rows(), n_real, causal, rows_of(y, kHeads * kDv));
    y.resize(n_real * kHeads * kDv);
    expected.resize(y.size());
    CHECK(relative_difference(y, Matrix(n_real, kHeads * kDv, expected)) < 1e-5);
  }
}

TEST_CASE("whole sequences have the same bits for any number of threads") {
  const Sequence s(384);
  for (const auto& c : {config({8, 4}, 2, 64, 1, 2048, 256), config({16}, 3, 32, 1, 2048, 256)}) {
    const Layer layer(c);
    std::vector<float> first;
    for (const unsigned n_threads : {1U, 2U, 8U}) {
      for (const Isa isa : {Isa::kScalar, isa_from_environment()}) {
        TestExec exec(n_threads);
        std::vector<float> y(s.v.size());
        layer.attention(isa).full(exec.get(), s.qk_rows(), s.v_rows(), 384, true, rows_of(y, kHeads * kDv));
        if (first.empty()) first = y;
        CHECK(same_bits(y, first));
      }
    }
  }
}

TEST_CASE("truncate, fork, save and load leave the sequence as if nothing else had happened") {
  TestExec exec(2);
  std::size_t i = 0;
  for (const LshConfig& c : step_configs()) {
    const Layer layer(c);
    const LshAttention attention = layer.attention();
    const KvType type = kKvTypes[i++ % std::size(kKvTypes)];
    CAPTURE(kv_type_name(type));
    const Sequence s(400), draft(150, 50);
    const auto expected = run_steps(exec.get(), attention, s, {400}, type);
    LshState state = attention.make_state(type, 600);
    std::vector<float> y(s.v.size()), ignored(draft.v.size());
    const Rows out = rows_of(y, kHeads * kDv);
    const auto go_astray = [&](LshState& other) {
      attention.step(exec.get(), other, draft.qk_rows(), draft.v_rows(), rows_of(ignored, kHeads * kDv));
    };
    for (std::size_t t = 0; t < 400; t += 50) {
      attention.step(exec.get(), state, s.qk_rows().slice(t, 50), s.v_rows().slice(t, 50), out.slice(t, 50));
      const std::size_t n = t + 50;
      go_astray(state);
      state.truncate(n);
      LshState child = state.fork();
      go_astray(t % 100 == 0 ? child : state);
      if (t % 100 != 0) {
        state = std::move(child);
      } else {
        child.truncate(n / 2);
        go_astray(child);
      }
      MemorySink sink;
      state.save(sink);
      LshState loaded = attention.make_state(type, 600);
      go_astray(loaded);
      MemorySource source(sink.bytes());
      loaded.load(source);
      CHECK(source.left() == 0);
      CHECK(loaded.length() == n);
      MemorySink again;
      loaded.save(again);
      CHECK(std::equal(again.bytes().begin(), again.bytes().end(), sink.bytes().begin(), sink.bytes().end()));
      if (t % 150 == 0) state = std::move(loaded);
    }
    CHECK(same_bits(y, expected));
  }
}

TEST_CASE(
    "a state of another shape or type, with an impossible bucket, or cut off is refused and leaves the state "
    "empty") {
  TestExec exec(1);
  const Layer layer(config({4, 2}, 2, 4, 1, 64, 16));
  const LshAttention attention = layer.attention();
  const Sequence s(40);
  LshState state = attention.make_state(KvType::kF32, 40);
  std::vector<float> y(s.v.size());
  attention.step(exec.get(), state, s.qk_rows(), s.v_rows(), rows_of(y, kHeads * kDv));
  MemorySink sink;
  state.save(sink);
  std::vector<std::byte> bytes(sink.bytes().begin(), sink.bytes().end());
  const auto load_into = [](LshState target, std::span<const std::byte> from) {
    MemorySource source(from);
    try {
      target.load(source);
    } catch (...) {
      CHECK(target.length() == 0);
      throw;
    }
  };
  expect_error(ErrorCode::kBadFile, "number of LSH heads",
               [&] { load_into(LshState(2, kDk, kDv, KvType::kF32, 2, 8, 40), bytes); });
  expect_error(ErrorCode::kBadFile, "number of buckets is 8, expected 6",
               [&] { load_into(LshState(kHeads, kDk, kDv, KvType::kF32, 2, 6, 40), bytes); });
  expect_error(ErrorCode::kBadFile, "remembered positions is 40",
               [&] { load_into(LshState(kHeads, kDk, kDv, KvType::kF32, 2, 8, 39), bytes); });
  expect_error(ErrorCode::kBadFile, "type of LSH keys and values is 0, expected 2",
               [&] { load_into(attention.make_state(KvType::kQ8, 40), bytes); });
  for (const std::size_t n : {0UL, 63UL, 64UL, 700UL, bytes.size() - 1}) {
    expect_error(ErrorCode::kBadFile, "ends too early",
                 [&] { load_into(attention.make_state(KvType::kF32, 40), std::span(bytes).first(n)); });
  }
  bytes.back() = std::byte{0x7F};
  expect_error(ErrorCode::kBadFile, "LSH bucket",
               [&] { load_into(attention.make_state(KvType::kF32, 40), bytes); });
}

TEST_CASE("a step allocates nothing, and the promised workspace is enough") {
  for (const unsigned n_threads : {1U, 2U, 8U}) {
    ThreadTeam team(n_threads);
    const ThreadTeam::Region region(team);
    const Layer layer(config({8, 4}, 2, 32, 1, 100, 30));
    const LshAttention attention = layer.attention();
    const Sequence s(320);
    Workspace ws(attention.workspace_bytes(320, n_threads));
    const Exec exec{team, ws};
    std::vector<float> y(s.v.size());
    for (const KvType type : kKvTypes) {
      LshState state = attention.make_state(type, 320);
      const AllocationCounter counter;
      attention.step(exec, state, s.qk_rows(), s.v_rows(), rows_of(y, kHeads * kDv));
      CHECK(counter.allocations() == 0);
    }
    attention.full(exec, s.qk_rows(), s.v_rows(), 320, true, rows_of(y, kHeads * kDv));
  }
}

TEST_CASE("bucket plans follow the length as in Trax") {
  CHECK(LshBuckets::from_length(1024, 64).factors == std::vector<std::uint32_t>{32});
  CHECK(LshBuckets::from_length(16384, 128).factors == std::vector<std::uint32_t>{16, 16});
  CHECK(LshBuckets::from_length(3, 4).factors == std::vector<std::uint32_t>{2});
  CHECK(LshBuckets::from_length(8192, 128).factors == std::vector<std::uint32_t>{128});
  CHECK(LshBuckets::from_length(8192 + 128, 128).factors == std::vector<std::uint32_t>{16, 8});
  std::size_t most = 0;
  for (std::size_t length = 1; length < 9000; ++length) {
    most = std::max(most, LshBuckets::from_length(length, 3).n_rotations());
    if (LshBuckets::most_rotations(length, 3) != most) CHECK_MESSAGE(false, "length ", length);
  }
  CHECK(LshBuckets{{4, 6}}.total() == 24);
  CHECK(LshBuckets{{4, 6}}.n_rotations() == 5);
}

TEST_CASE("a hash does not depend on the length of the vector, and ties go to the first rotation") {
  const Layer layer(config({8, 6}, 2, 4, 1, 64, 16));
  const LshHash hash(attention_kernels(isa_from_environment()), {{8, 6}}, kHeads, 2, kDk,
                     layer.rotations.data());
  std::vector<float> scratch(hash.scratch_floats());
  const auto x = random_floats(50 * kDk, 4);
  for (std::size_t i = 0; i < 50; ++i) {
    std::vector<std::uint32_t> ids(2), scaled_ids(2);
    std::vector<float> scaled(x.begin() + static_cast<std::ptrdiff_t>(i * kDk),
                              x.begin() + static_cast<std::ptrdiff_t>((i + 1) * kDk));
    hash.hash(1, x.data() + i * kDk, ids.data(), scratch.data());
    for (float& value : scaled) value *= 4.0F;
    hash.hash(1, scaled.data(), scaled_ids.data(), scratch.data());
    CHECK(ids == scaled_ids);
    CHECK(std::max(ids[0], ids[1]) < 48);
  }
  const std::vector<float> zero(kDk, 0.0F);
  std::vector<std::uint32_t> ids(2, 9);
  hash.hash(0, zero.data(), ids.data(), scratch.data());
  CHECK(ids == std::vector<std::uint32_t>{0, 0});
}

TEST_CASE("impossible configurations and lengths are refused") {
  const AttentionKernels& kernels = attention_kernels(Isa::kScalar);
  const std::vector<float> rotations(10000);
  const auto make = [&](LshConfig c, std::size_t n) { return LshAttention(kernels, c, rotations.data(), n); };
  expect_error(ErrorCode::kBadConfig, "8 buckets need 3 rotation vectors per round, found 4", [&] {
    make(config({4, 2}, 2, 4, 1, 64, 16), 4);
  });
  expect_error(ErrorCode::kBadConfig, "must be even, found 3",
               [&] { make(config({3}, 2, 4, 1, 64, 16), 1); });
  expect_error(ErrorCode::kBadConfig, "buckets", [&] {
    make(config({65536, 65536}, 1, 4, 1, 64, 16), 65536);
  });
  expect_error(ErrorCode::kBadConfig, "drop_len (65) must lie between 1 and mem_len (64)",
               [&] { make(config({4}, 2, 4, 1, 64, 65), 2); });
  expect_error(ErrorCode::kBadConfig, "chunk_len", [&] { make(config({4}, 2, 0, 1, 64, 16), 2); });
  const LshAttention derived = make(config({}, 2, 4, 1, 64, 16), 2);
  expect_error(ErrorCode::kBadConfig, "explicit n_buckets", [&] { derived.make_state(KvType::kF32, 10); });
  TestExec exec(1);
  const Sequence s(16), odd(9);
  std::vector<float> y(s.v.size()), odd_y(odd.v.size());
  expect_error(ErrorCode::kBadConfig, "8 buckets need 4 rotation vectors", [&] {
    derived.full(exec.get(), s.qk_rows(), s.v_rows(), 16, true, rows_of(y, kHeads * kDv));
  });
  const LshAttention layer = make(config({4}, 2, 4, 1, 64, 16), 2);
  expect_error(ErrorCode::kBadArgument, "(18) must be a multiple of chunk_len (4)", [&] {
    layer.full(exec.get(), odd.qk_rows(), odd.v_rows(), 9, true, rows_of(odd_y, kHeads * kDv));
  });
  std::size_t rows = 0;
  layer.full(exec.get(), s.qk_rows(), s.v_rows(), 16, true, rows_of(y, kHeads * kDv),
             [&](std::size_t done) { rows += done; });
  CHECK(rows == 16);
  expect_error(ErrorCode::kCancelled, "cancelled here", [&] {
    layer.full(exec.get(), s.qk_rows(), s.v_rows(), 16, true, rows_of(y, kHeads * kDv),
               [](std::size_t) { throw Error(ErrorCode::kCancelled, "cancelled here"); });
  });
}

}  // namespace
}  // namespace terrace::test
