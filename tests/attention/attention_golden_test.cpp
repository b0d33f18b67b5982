// SPDX-License-Identifier: Apache-2.0
// Every attention core and positional encoding against the oracle; tests/golden/make_attention.py wrote the
// numbers.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "attention/causal_attention.h"
#include "attention/favor.h"
#include "attention/full_attention.h"
#include "attention/lsh_attention.h"
#include "attention/position.h"
#include "attention/rotary.h"
#include "attention/self_attention.h"
#include "tests/support/golden_file.h"
#include "tests/support/layer_runs.h"
#include "tests/support/naive_attention.h"

namespace terrace::test {
namespace {

using nlohmann::json;

constexpr double kTolerance = 1e-5;

const json& golden(const char* part) {
  static const json all = json::parse(read_golden_file("attention.json"));
  return all.at(part);
}

std::vector<float> given(const json& item, const char* name) {  // stored times 16
  std::vector<float> x;
  for (const int v : item.at(name)) x.push_back(static_cast<float>(v) / 16.0F);
  return x;
}

void check_close(const std::vector<float>& y, const json& item) {
  const auto expected = item.at("y").get<std::vector<float>>();
  REQUIRE(y.size() >= expected.size());
  const std::vector<float> compared(y.begin(), y.begin() + static_cast<std::ptrdiff_t>(expected.size()));
  CHECK(relative_difference(compared, Matrix(expected.size(), 1, expected)) < kTolerance);
}

TEST_CASE("positional encodings equal the oracle") {
  constexpr std::size_t d = 16;
  TestExec exec(2);
  for (const json& item : golden("positions")) {
    const auto kind = item.at("kind").get<std::string>();
    const auto first = item.at("first").get<std::size_t>();
    CAPTURE(kind);
    CAPTURE(first);
    auto x = given(item, "x");
    const auto weights = [&](const char* name) {
      return item.contains(name) ? given(item, name) : std::vector<float>{};
    };
    const auto table = weights("table"), proj = weights("proj"), digits = weights("digits"),
               start = weights("start"), axis0 = weights("axis0"), axis1 = weights("axis1"),
               weight = weights("weight");
    const auto linear = [](const std::vector<float>& w, std::size_t in) {
      return Linear(dense_kernels(isa_from_environment()),
                    {w.data(), nullptr, w.size() / in, in, in, DType::kF32}, nullptr);
    };
    if (kind == "rotary") {
      Rotary(d, 20).apply(exec.get(), rows_of(x, d), first);
    } else {
      const PositionEncoding encoding = [&] {
        if (kind == "learned") return PositionEncoding(LearnedPosition(table.data(), 20, d));
        if (kind == "low_rank") return PositionEncoding(LowRankPosition(table.data(), 20, linear(proj, 4)));
        if (kind == "sin_cos") return PositionEncoding(SinCosPosition(d));
        if (kind == "fixed_base") return PositionEncoding(FixedBasePosition(digits.data(), start.data(), d));
        if (kind == "axial")
          return PositionEncoding(AxialPosition({{axis0.data(), 4, 6}, {axis1.data(), 5, 10}}));
        if (kind == "infinite") return PositionEncoding(InfinitePosition(linear(weight, d), 20));
        return PositionEncoding(TimeBinPosition(3));
      }();
      encoding.add(exec.get(), rows_of(x, d), first);
    }
    check_close(x, item);
  }
}

TEST_CASE("dot-product attention and favor equal the oracle") {
  constexpr std::size_t h = 2, d = 8;
  for (const Isa isa : available_isas()) {
    const AttentionKernels& kernels = attention_kernels(isa);
    TestExec exec(2);
    for (const json& item : golden("dot_product")) {
      const auto kind = item.at("kind").get<std::string>();
      const auto n = item.at("n").get<std::size_t>(), n_real = item.at("n_real").get<std::size_t>();
      CAPTURE(kind);
      const auto q = given(item, "q"), k = given(item, "k"), v = given(item, "v");
      std::vector<float> y(n * d);
      if (kind == "causal") {
        const CausalAttention attention(kernels, h, h, d / h, d / h);
        KvCache kv = attention.make_cache(KvType::kF32, n);
        kv.append(exec.get(), rows_of(k, d), rows_of(v, d));
        attention.forward(exec.get(), kv, rows_of(q, d), rows_of(y, d));
      } else if (kind == "full") {
        const FullAttention attention(kernels, h, h, d / h, d / h);
        KvCache kv = attention.make_cache(KvType::kF32, n);
        kv.append(exec.get(), rows_of(k, d).slice(0, n_real), rows_of(v, d).slice(0, n_real));
        attention.forward(exec.get(), kv, rows_of(q, d), rows_of(y, d));
      } else if (kind == "favor_causal") {
        const FavorAttention attention(kernels, h, d / h);
        std::vector<float> state(attention.state_floats());
        attention.causal(exec.get(), std::span(state), rows_of(q, d), rows_of(k, d), rows_of(v, d),
                         rows_of(y, d));
      } else {
        const auto features = kind == "favor_softmax" ? given(item, "features") : std::vector<float>{};
        const FavorAttention attention(kernels, h, d / h, features.empty() ? nullptr : features.data(),
                                       features.size() / (d / h));
        attention.full(exec.get(), rows_of(q, d), rows_of(k, d), rows_of(v, d), n_real, rows_of(y, d));
      }
      check_close(y, item);
    }
  }
}

TEST_CASE("SelfAttention equals the oracle, whole sequences and step by step") {
  constexpr std::size_t h = 2, d_k = 4, d_v = 3;
  for (const Isa isa : available_isas()) {
    TestExec exec(2);
    for (const json& item : golden("self")) {
      SelfAttentionConfig config{h, d_k, d_v};
      config.share_qk = item.at("share_qk");
      config.chunk_len = item.at("chunk_len");
      config.n_chunks_before = item.at("before");
      config.n_chunks_after = item.at("after");
      config.mem_len = item.at("mem_len");
      config.drop_len = item.at("drop_len");
      CAPTURE(isa_name(isa));
      CAPTURE(item.dump());
      const SelfAttention attention(attention_kernels(isa), config);
      const auto n = item.at("n").get<std::size_t>();
      const auto q = given(item, "q"), k = given(item, "k"), v = given(item, "v");
      std::vector<float> y(n * h * d_v);
      if (item.at("form") == "full") {
        attention.full(exec.get(), rows_of(q, h * d_k), rows_of(k, h * d_k), rows_of(v, h * d_v),
                       item.at("n_real"), item.at("causal"), rows_of(y, h * d_v));
      } else {
        KvCache kv = attention.make_cache(KvType::kF32, n);
        attention.step(exec.get(), kv, rows_of(q, h * d_k), rows_of(k, h * d_k), rows_of(v, h * d_v),
                       rows_of(y, h * d_v));
      }
      check_close(y, item);
    }
  }
}

TEST_CASE("LSH attention equals the oracle, whole sequences and step by step") {
  constexpr std::size_t h = 2, d_k = 6, d_v = 4;
  for (const Isa isa : available_isas()) {
    TestExec exec(2);
    for (const json& item : golden("lsh")) {
      LshConfig config{h, d_k, d_v};
      config.chunk_len = item.at("chunk_len");
      config.n_chunks_before = item.at("before");
      config.n_chunks_after = item.at("after");
      config.n_hashes = item.at("n_hashes");
      config.n_buckets = item.at("n_buckets").get<std::vector<std::uint32_t>>();
      config.mem_len = item.at("mem_len");
      config.drop_len = item.at("drop_len");
      CAPTURE(isa_name(isa));
      CAPTURE(item.at("form").get<std::string>());
      CAPTURE(item.at("n_buckets").dump());
      CAPTURE(config.mem_len);
      const auto rotations = given(item, "rotations");
      const LshAttention attention(attention_kernels(isa), config, rotations.data(),
                                   rotations.size() / (h * config.n_hashes * d_k));
      const auto n = item.at("n").get<std::size_t>();
      const auto qk = given(item, "qk"), v = given(item, "v");
      std::vector<float> y(n * h * d_v);
      if (item.at("form") == "full") {
        attention.full(exec.get(), rows_of(qk, h * d_k), rows_of(v, h * d_v), item.at("n_real"),
                       item.at("causal"), rows_of(y, h * d_v));
      } else {
        LshState state = attention.make_state(KvType::kF32, n);
        attention.step(exec.get(), state, rows_of(qk, h * d_k), rows_of(v, h * d_v), rows_of(y, h * d_v));
      }
      check_close(y, item);
    }
  }
}

}  // namespace
}  // namespace terrace::test
