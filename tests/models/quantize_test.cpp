// SPDX-License-Identifier: Apache-2.0
#include "models/quantize.h"

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>

#include "engine/error.h"
#include "models/init.h"
#include "models/session.h"
#include "tests/support/temporary_directory.h"

namespace terrace {
namespace {

constexpr const char* kConfig =
    R"({"family":"transformer_lm","d_model":128,"d_ff":256,"n_heads":4,"vocab_size":256,"max_context":64,
        "decoder":{"n_layers":2,"position":{"kind":"learned","max_len":64},
        "attention":[{"kind":"multiplicative_conv","n_modules":2}],
        "ff":{"kind":"sparse","block_size":16,"d_lowrank":64,"sru":{"n_layers":1,"width":64}}},
        "logits":{"kind":"mult","n_modules":4}})";

std::vector<float> logits_of(const std::string& path) {
  const auto model = Model::load(path);
  Runtime runtime({.n_threads = 1});
  Session session(model, runtime);
  session.prefill(std::vector<TokenId>{1, 17, 250, 3, 99});
  return {session.logits().begin(), session.logits().end()};
}

TEST_CASE("quantize: every dtype gives a model that loads and speaks; f32 keeps every bit") {
  const test::TemporaryDirectory directory;
  const std::string original = directory.file("original");
  init_model(parse_config(kConfig), original, {.seed = 3});
  const std::vector<float> expected = logits_of(original);
  const WeightFile file = WeightFile::open(original);
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kQ8, DType::kQ4}) {
    CAPTURE(dtype_name(dtype));
    const std::string path = directory.file(dtype_name(dtype));
    quantize_model(file, path, {.dtype = dtype, .n_threads = 2});
    const std::vector<float> logits = logits_of(path);
    if (dtype == DType::kF32) CHECK(logits == expected);
    // A rounded controller may pick other units, so nearness is not promised here; finite logits are.
    for (const float z : logits) CHECK(std::isfinite(z));
  }
}

TEST_CASE("quantize: a stop leaves no file, an impossible target is an error") {
  const test::TemporaryDirectory directory;
  const std::string original = directory.file("original");
  init_model(parse_config(kConfig), original, {.seed = 3});
  const WeightFile file = WeightFile::open(original);
  const std::string stopped = directory.file("stopped");
  const auto stop = [](std::uint64_t, std::uint64_t) { return false; };
  CHECK_THROWS_AS(quantize_model(file, stopped, {.dtype = DType::kQ8, .progress = stop}), Error);
  CHECK_FALSE(std::filesystem::exists(stopped));
  CHECK_THROWS_AS(quantize_model(file, "/nonexistent/q8", {}), Error);
}

}  // namespace
}  // namespace terrace
