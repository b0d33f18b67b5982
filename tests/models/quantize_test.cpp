// SPDX-License-Identifier: Apache-2.0
#include "models/quantize.h"

#include <doctest/doctest.h>

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

TEST_CASE("quantize: every dtype gives a model that loads, and logits near those of f32") {
  const test::TemporaryDirectory directory;
  const std::string original = directory.file("f32");
  init_model(parse_config(kConfig), original, {.seed = 3});
  const std::vector<float> expected = logits_of(original);
  const auto model = Model::load(original);
  double previous_error = 0;
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kQ8, DType::kQ4}) {
    CAPTURE(dtype_name(dtype));
    const std::string path = directory.file(dtype_name(dtype));
    const std::vector<QuantizedTensor> report =
        quantize_model(*model, path, {.dtype = dtype, .n_threads = 2});
    CHECK(report.size() > 10);
    double error = 0;
    for (const QuantizedTensor& tensor : report) error = std::max(error, tensor.relative_error);
    CHECK(error >= previous_error);
    CHECK(error < 0.15);
    previous_error = error;
    const std::vector<float> logits = logits_of(path);
    if (dtype == DType::kF32) CHECK(logits == expected);
    // A quantised controller may pick other units, so nearness is only promised for what does not change
    // picks.
    for (const float z : logits) CHECK(std::isfinite(z));
  }
}

TEST_CASE("quantize: layers may differ, a stop leaves no file, weights that are not finite are named") {
  const test::TemporaryDirectory directory;
  const std::string original = directory.file("f32");
  init_model(parse_config(kConfig), original, {.seed = 3});
  const auto model = Model::load(original);
  const std::string mixed = directory.file("mixed");
  const auto report = quantize_model(
      *model, mixed, {.dtype = DType::kQ8, .by_kind = {{LayerKind::kAttention, DType::kBf16}}});
  for (const QuantizedTensor& tensor : report) {
    CHECK(tensor.dtype == (tensor.kind == LayerKind::kAttention ? DType::kBf16 : DType::kQ8));
  }
  CHECK(logits_of(mixed).size() == 256);
  const std::string stopped = directory.file("stopped");
  const auto stop = [](std::uint64_t, std::uint64_t) { return false; };
  CHECK_THROWS_AS(quantize_model(*model, stopped, {.dtype = DType::kQ8, .progress = stop}), Error);
  CHECK_FALSE(std::filesystem::exists(stopped));
  CHECK_THROWS_AS(quantize_model(*model, "/nonexistent/q8", {}), Error);
}

}  // namespace
}  // namespace terrace
