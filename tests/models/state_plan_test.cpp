// SPDX-License-Identifier: Apache-2.0
#include "models/state_plan.h"

#include <doctest/doctest.h>

#include "models/network.h"
#include "models/presets.h"
#include "tests/support/expect_error.h"
#include "tests/support/session_samples.h"

namespace terrace {
namespace {

void check_same(const KvSpec& a, const KvSpec& b) {
  CHECK(a.n_heads == b.n_heads);
  CHECK(a.d_k == b.d_k);
  CHECK(a.d_v == b.d_v);
  CHECK(a.until == b.until);
  CHECK(a.route == b.route);
}

TEST_CASE("The plan of a model's state is what its layers reserve") {
  test::for_samples([](test::Models& models, const test::Sample& sample) {
    const auto model = models.make(sample);
    const StatePlan plan = state_plan(model->config());
    const StateLayout& built = model->network().decoder_state();
    CHECK(plan.decoder.recurrent.size() == built.recurrent.size());
    CHECK(plan.decoder.n_routes == built.n_routes);
    REQUIRE(plan.decoder.kv.size() == built.kv.size());
    for (std::size_t i = 0; i < built.kv.size(); ++i) check_same(plan.decoder.kv[i], built.kv[i]);
    REQUIRE(plan.decoder.lsh.size() == built.lsh.size());
    for (std::size_t i = 0; i < built.lsh.size(); ++i) {
      const LshSpec &a = plan.decoder.lsh[i], &b = built.lsh[i];
      check_same({a.n_heads, a.d_k, a.d_v, 0, a.route}, {b.n_heads, b.d_k, b.d_v, 0, b.route});
      CHECK(a.n_hashes == b.n_hashes);
      CHECK(a.n_buckets == b.n_buckets);
      CHECK(a.budget == b.budget);
      CHECK(a.window.mem_len == b.window.mem_len);
      CHECK(a.window.drop_len == b.window.drop_len);
    }
    std::size_t n_cross = 0;
    for (const Block& block : model->network().decoder().blocks()) {
      if (!block.cross()) continue;
      REQUIRE(n_cross < plan.cross.size());
      check_same(plan.cross[n_cross++], block.cross()->kv_spec());
    }
    CHECK(n_cross == plan.cross.size());
  });
}

TEST_CASE("The planned memory of a session is what it reports when it has read that much") {
  Runtime runtime({.n_threads = 2});
  test::for_samples([&](test::Models& models, const test::Sample& sample) {
    const auto model = models.make(sample);
    if (model->config().decoder.depths) return;  // how many tokens a block runs is up to its router
    for (const KvType type : {KvType::kF32, KvType::kQ8}) {
      Session session = test::start(model, runtime, type);
      session.prefill(test::some_tokens(*model, test::kLength));
      const StateBytes bytes = session.state_bytes();
      const std::uint64_t snapshots = bytes.recurrent * (1 + test::kLength / Session::kSnapshotInterval);
      CHECK(session_bytes(model->config(), state_plan(model->config()), type, test::kLength,
                          session.encoder_length()) == bytes.kv_cache + bytes.recurrent + snapshots);
      // The encoder has scratch memory of its own.
      if (!model->has_encoder()) CHECK(bytes.workspace <= pass_scratch_bytes(model->config()));
    }
  });
}

TEST_CASE("Bytes per position: two rows of d_model per sublayer, with scales where they are quantised") {
  const ModelConfig config = preset_config("lm1b-24L", true);  // 24 blocks, 16 heads of 64 channels
  const StatePlan plan = state_plan(config);
  const auto per_slot = [&](KvType type) {
    const auto at = [&](std::size_t position) {
      return state_cost(config, plan, {.kv_type = type, .position = position}).bytes;
    };
    return at(100) - at(99);
  };
  CHECK(per_slot(KvType::kF32) == 24 * 16 * 2 * 64 * 4);
  CHECK(per_slot(KvType::kBf16) == 24 * 16 * 2 * 64 * 2);
  CHECK(per_slot(KvType::kQ8) == 24 * 16 * 2 * (64 + 4));
  CHECK(per_slot(KvType::kQ4) == 24 * 16 * 2 * (32 + 2 * 2));
}

TEST_CASE("LSH attention reads its budget however long the context is, unless it is to be exact") {
  const ModelConfig config = parse_config(
      R"({"family":"reformer_lm","d_model":32,"d_ff":64,"n_heads":4,"vocab_size":40,"max_context":4096,
          "decoder":{"n_layers":1,"position":{"kind":"fixed_base"},
          "attention":[{"kind":"lsh","chunk_len":8,"n_chunks_before":1,"n_hashes":2,"n_buckets":8,
                        "mem_len":2048,"drop_len":512}],"ff":{"kind":"dense"}}})");
  const StatePlan plan = state_plan(config);
  const auto at = [&](std::size_t position, bool exact) {
    return state_cost(config, plan, {.position = position, .exact_attention = exact});
  };
  CHECK(at(100, false).bytes == at(2000, false).bytes);
  // 2 rounds of 8 * (1 + 1) slots, 4 heads: keys and values of 8 channels, a link for each round.
  CHECK(at(2000, false).bytes == 2 * 16 * 4 * ((8 + 8) * 4 + 2 * 4));
  CHECK(at(2000, false).multiply_adds == 2 * 16 * 4 * (8 + 8));
  CHECK(at(2000, true).multiply_adds == 2001 * 4 * (8 + 8));
}

TEST_CASE("A document stands in Terraformer's own caches, and in those of cross attention") {
  for (const char* name : {"Terraformer", "cross attention with a sparse query"}) {
    CAPTURE(name);
    const ModelConfig config = parse_config(test::sample_named(name).config);
    const StatePlan plan = state_plan(config);
    const auto cost = [&](std::size_t length) {
      return state_cost(config, plan, {.position = 9, .encoder_length = length});
    };
    // 2 blocks: of Terraformer with two sublayers each. A key and a value of 32 channels for each token.
    const std::size_t n_caches = config.family == Family::kTerraformer ? 4 : 2;
    CHECK(cost(70).bytes - cost(0).bytes == 70 * n_caches * 2 * 32 * sizeof(float));
    CHECK(cost(70).multiply_adds - cost(0).multiply_adds == 70 * n_caches * 2 * 32);
  }
}

TEST_CASE("A configuration that describes no model has no state") {
  ModelConfig config = preset_config("lm-default", true);
  config.n_heads = 7;
  test::expect_error(ErrorCode::kBadConfig, "n_heads", [&] { state_plan(config); });
}

}  // namespace
}  // namespace terrace
