// SPDX-License-Identifier: Apache-2.0
// Logits of small models against those that Trax's own layer code computed (tests/golden/README.md).
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <vector>

#include "models/evaluate.h"
#include "models/session.h"
#include "tests/support/npy.h"

namespace terrace {
namespace {

constexpr float kTolerance = 2e-5F;

std::string golden(const std::string& name) { return std::string(TERRACE_GOLDEN_DIR) + "/models/" + name; }

/// What the decoder is fed: 0 first, then each target token (Trax shifts right inside the model).
std::vector<TokenId> shifted(const std::string& name) {
  const test::Array<std::int32_t> tokens = test::read_npy_i32(golden(name + ".tok_d.npy"));
  std::vector<TokenId> ids = {0};
  ids.insert(ids.end(), tokens.values.begin(), tokens.values.end() - 1);
  return ids;
}

std::vector<TokenId> encoder_tokens(const std::string& name) {
  if (!std::filesystem::exists(golden(name + ".tok_e.npy"))) return {};
  const test::Array<std::int32_t> tokens = test::read_npy_i32(golden(name + ".tok_e.npy"));
  return {tokens.values.begin(), tokens.values.end()};
}

void check_row(const test::Array<float>& expected, std::size_t row, std::span<const float> logits) {
  CAPTURE(row);
  REQUIRE(logits.size() == expected.cols);
  float worst = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    worst = std::max(worst, std::abs(logits[i] - expected.row(row)[i]));
  }
  CHECK(worst <= kTolerance);
}

void check_evaluation(const Model& model, const std::string& name) {
  const test::Array<float> expected = test::read_npy_f32(golden(name + ".eval.npy"));
  Runtime runtime({.n_threads = 2});
  std::size_t rows = 0;
  const std::vector<TokenId> document = encoder_tokens(name);
  const EncoderInput input = std::span<const TokenId>(document);
  evaluate(model, runtime, shifted(name), document.empty() ? nullptr : &input,
           [&](std::size_t row, std::span<const float> logits) {
             check_row(expected, row, logits);
             ++rows;
           });
  CHECK(rows == expected.rows);
}

void check_steps(const std::shared_ptr<const Model>& model, const std::string& name,
                 const std::string& what) {
  const test::Array<float> expected = test::read_npy_f32(golden(name + what));
  Runtime runtime({.n_threads = 1});
  Session session(model, runtime);
  if (model->has_encoder()) session.encode(encoder_tokens(name));
  const std::vector<TokenId> ids = shifted(name);
  for (std::size_t t = 0; t < ids.size(); ++t) check_row(expected, t, session.decode(ids[t]));
}

TEST_CASE("golden: evaluation and steps give Trax's logits on every instruction set") {
  for (const Isa isa : available_isas()) {
    CAPTURE(isa_name(isa));
    for (const std::string name : {"lm_dense", "lm_sparse", "lm_sparse_shareqk", "terraformer_lowrank_pos",
                                   "terraformer_sparse_reversible"}) {
      CAPTURE(name);
      const auto model = Model::load(golden(name + ".terrace"), {.isa = isa});
      check_evaluation(*model, name);
      // Trax's predict mode gives every step of a low-rank table position 0 (a bug of Trax): eval decides.
      const bool has_predict = std::filesystem::exists(golden(name + ".predict.npy"));
      check_steps(model, name, has_predict ? ".predict.npy" : ".eval.npy");
      check_steps(model, name, ".eval.npy");
    }
  }
}

TEST_CASE("golden: LSH attention over the whole sequence and token by token, each with its rotations") {
  for (const Isa isa : available_isas()) {
    CAPTURE(isa_name(isa));
    check_evaluation(*Model::load(golden("reformer_lsh_eval.terrace"), {.isa = isa}), "reformer_lsh_eval");
    check_steps(Model::load(golden("reformer_lsh_predict.terrace"), {.isa = isa}), "reformer_lsh_predict",
                ".predict.npy");
  }
}

}  // namespace
}  // namespace terrace
