// SPDX-License-Identifier: Apache-2.0
#include "models/quantize.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <span>
#include <utility>

#include "engine/error.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/linear.h"
#include "engine/weight_writer.h"
#include "models/init.h"
#include "models/session.h"
#include "models/tensor_plan.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace terrace {
namespace {

constexpr const char* kConfig =
    R"({"family":"transformer_lm","d_model":128,"d_ff":256,"n_heads":4,"vocab_size":256,"max_context":64,
        "decoder":{"n_layers":2,"position":{"kind":"learned","max_len":64},
        "attention":[{"kind":"multiplicative_conv","n_modules":2}],
        "ff":{"kind":"sparse","block_size":16,"d_lowrank":64,"sru":{"n_layers":1,"width":64}}},
        "logits":{"kind":"mult","n_modules":4}})";

constexpr const char* kRmsConfig =
    R"({"family":"transformer_lm","d_model":128,"d_ff":256,"n_heads":4,"vocab_size":256,"max_context":64,
        "norm":{"kind":"rms_norm"},
        "decoder":{"n_layers":2,"position":{"kind":"none"},
        "attention":[{"kind":"dot_product","rotary":{}}],"ff":{"kind":"dense","gated":true}},
        "logits":{"kind":"dense"}})";

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
    const auto changes = quantize_model(file, path, {.dtype = dtype, .n_threads = 2});
    CHECK(changes.size() == tensor_plan(parse_config(kConfig)).size());
    const std::vector<float> logits = logits_of(path);
    if (dtype == DType::kF32) CHECK(logits == expected);
    // A rounded controller may pick other units, so nearness is not promised here; finite logits are.
    for (const float z : logits) CHECK(std::isfinite(z));
  }
}

/// Values of a weight, row after row.
std::vector<float> values_of(const WeightFile& file, const std::string& name) {
  const WeightView view = file.weight(name);
  std::vector<float> values(view.rows * view.cols);
  for (std::size_t r = 0; r < view.rows; ++r)
    widen_row(dense_kernels(Isa::kScalar), view, r, values.data() + r * view.cols);
  return values;
}

TEST_CASE("quantize: the report gives dtypes, bytes and errors as the two files hold them") {
  const test::TemporaryDirectory directory;
  const std::string original = directory.file("original");
  init_model(parse_config(kConfig), original, {.seed = 3});
  const WeightFile before = WeightFile::open(original);
  WeightDTypes dtypes = DType::kQ8;
  dtypes.set(LayerKind::kController, DType::kQ4);
  dtypes.set(LayerKind::kEmbedding, DType::kF32);
  const std::string path = directory.file("mixed");
  const auto changes = quantize_model(before, path, {.dtype = dtypes, .n_threads = 1});
  const auto threaded = quantize_model(before, directory.file("mixed-2"), {.dtype = dtypes, .n_threads = 3});
  const WeightFile after = WeightFile::open(path);
  std::size_t n_changed = 0;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    const TensorChange& change = changes[i];
    CAPTURE(change.name);
    const TensorInfo& stored = after.get(change.name);
    const TensorInfo* scale = after.find(change.name + std::string(kScaleSuffix));
    CHECK(change.from == DType::kF32);
    CHECK(change.to == weight_dtype(stored));
    CHECK(change.bytes_before == before.get(change.name).bytes);
    const bool quantized = change.to == DType::kQ8 || change.to == DType::kQ4;
    CHECK(change.bytes_after == stored.bytes + (quantized ? scale->bytes : 0));
    CHECK(change.error.squared_errors == threaded[i].error.squared_errors);
    if (change.from == change.to) {
      CHECK(change.error.largest == 0);
      continue;
    }
    ++n_changed;
    const bool controller = change.name.find(".controller.") != std::string::npos;
    CHECK((change.to == DType::kQ4) == controller);
    const auto old_values = values_of(before, change.name);
    const auto new_values = values_of(after, change.name);
    double squares = 0;
    double errors = 0;
    double largest = 0;
    for (std::size_t k = 0; k < old_values.size(); ++k) {
      const double error = static_cast<double>(new_values[k]) - old_values[k];
      squares += std::pow(static_cast<double>(old_values[k]), 2);
      errors += error * error;
      largest = std::max(largest, std::abs(error));
    }
    CHECK(change.error.relative_rms() == doctest::Approx(std::sqrt(errors / squares)));
    CHECK(change.error.largest == doctest::Approx(largest));
    // Uniform rounding of normal rows: step / sqrt(12), where the step is 3.7 standard deviations over 127 or
    // about 2.5 over 8.
    CHECK(change.error.relative_rms() > (controller ? 0.03 : 0.004));
    CHECK(change.error.relative_rms() < (controller ? 0.12 : 0.012));
  }
  CHECK(n_changed > 10);
}

TEST_CASE("quantize: each row of units that a token gathers has a scale of its own, w1 and w2 side by side") {
  const test::TemporaryDirectory directory;
  const std::string original = directory.file("original");
  init_model(parse_config(kConfig), original, {.seed = 3});
  const std::string path = directory.file("q8");
  const WeightFile before = WeightFile::open(original);
  quantize_model(before, path, {.dtype = DType::kQ8});
  const WeightFile after = WeightFile::open(path);
  const std::string name = "decoder.blocks.1.ff.units";
  const WeightView units = after.weight(name);
  const auto values = values_of(before, name);
  REQUIRE(units.rows == 2 * 256);
  for (std::size_t row = 0; row < units.rows; ++row) {
    float largest = 0;
    for (std::size_t c = 0; c < units.cols; ++c)
      largest = std::max(largest, std::abs(values[row * units.cols + c]));
    CHECK(static_cast<const float*>(units.scale)[row] == largest / 127);
  }
  CHECK(units.row_scale(1) - units.row_scale(0) == sizeof(float));
}

/// A copy, with true checksums, in which a tensor begins with these values.
void copy_with(const WeightFile& in, const std::string& path, const std::string& name,
               const std::vector<float>& values) {
  std::vector<TensorSpec> specs;
  for (const TensorInfo& tensor : in.tensors()) specs.push_back({tensor.name, tensor.type, tensor.shape});
  WeightWriter writer(path, specs, {{"config", *in.metadata("config")}});
  for (const TensorInfo& tensor : in.tensors()) {
    auto rest = in.data(tensor);
    if (tensor.name == name) {
      writer.write(name, std::as_bytes(std::span(values)));
      rest = rest.subspan(values.size() * sizeof(float));
    }
    writer.write(tensor.name, rest);
  }
  writer.commit();
}

TEST_CASE("quantize: rows of zeros and scales of -0 are the same as scales of +0") {
  const test::TemporaryDirectory directory;
  const std::string original = directory.file("original");
  init_model(parse_config(kConfig), original, {.seed = 3});
  const WeightFile file = WeightFile::open(original);
  std::vector<std::vector<float>> logits;
  for (const float zero : {0.0F, -0.0F}) {
    const std::string q8 = directory.file("q8"), path = directory.file("zero");
    quantize_model(file, q8, {.dtype = DType::kQ8});
    copy_with(WeightFile::open(q8), path, "decoder.blocks.0.attention.0.q.weight.scale",
              std::vector<float>(3, zero));
    logits.push_back(logits_of(path));
    quantize_model(WeightFile::open(path), path, {.dtype = DType::kQ4});
    logits.push_back(logits_of(path));
  }
  CHECK(logits[0] == logits[2]);
  CHECK(logits[1] == logits[3]);
}

TEST_CASE("quantize: a tensor of another shape than the configuration's is refused") {
  const test::TemporaryDirectory directory;
  const std::string original = directory.file("original");
  init_model(parse_config(kConfig), original, {.seed = 3});
  const WeightFile file = WeightFile::open(original);
  const std::string wrong = directory.file("wrong");
  std::vector<TensorSpec> specs;
  for (const TensorInfo& tensor : file.tensors()) specs.push_back({tensor.name, tensor.type, tensor.shape});
  const auto units = std::find_if(specs.begin(), specs.end(),
                                  [](const TensorSpec& s) { return s.name == "decoder.blocks.0.ff.units"; });
  units->shape = {256, 256};  // [256, 2, 128] with the same bytes
  WeightWriter writer(wrong, specs, {{"config", *file.metadata("config")}});
  for (const TensorInfo& tensor : file.tensors()) writer.write(tensor.name, file.data(tensor));
  writer.commit();
  test::expect_error(ErrorCode::kBadFile, "decoder.blocks.0.ff.units", [&] {
    quantize_model(WeightFile::open(wrong), directory.file("out"), {.dtype = DType::kQ4});
  });
}

TEST_CASE("quantize: biases of maps that a plan with RMSNorm does without stay as they are") {
  const test::TemporaryDirectory directory;
  const std::string original = directory.file("original"), biased = directory.file("biased");
  init_model(parse_config(kRmsConfig), original, {.seed = 3});
  const WeightFile file = WeightFile::open(original);
  const std::vector<std::pair<std::string, std::uint64_t>> names = {
      {"decoder.blocks.0.attention.0.q.bias", 128}, {"decoder.blocks.1.ff.w2.bias", 128}};
  const auto write_with_biases = [&](std::uint64_t more) {
    std::vector<TensorSpec> specs;
    for (const TensorInfo& tensor : file.tensors()) specs.push_back({tensor.name, tensor.type, tensor.shape});
    for (const auto& [name, size] : names) specs.push_back({name, StoredType::kF32, {size + more}});
    WeightWriter writer(biased, specs, {{"config", *file.metadata("config")}});
    for (const TensorInfo& tensor : file.tensors()) writer.write(tensor.name, file.data(tensor));
    for (const auto& [name, size] : names) {
      const std::vector<float> values(size + more, 0.25F);
      writer.write(name, std::as_bytes(std::span(values)));
    }
    writer.commit();
  };
  write_with_biases(0);
  const std::string same = directory.file("same"), q8 = directory.file("q8");
  quantize_model(WeightFile::open(biased), same, {.dtype = DType::kF32});
  CHECK(logits_of(same) == logits_of(biased));
  CHECK(logits_of(same) != logits_of(original));
  quantize_model(WeightFile::open(biased), q8, {.dtype = DType::kQ8});
  for (const auto& [name, size] : names) CHECK(WeightFile::open(q8).f32(name)[size - 1] == 0.25F);
  write_with_biases(1);
  test::expect_error(ErrorCode::kBadFile, names[0].first,
                     [&] { quantize_model(WeightFile::open(biased), q8, {.dtype = DType::kQ8}); });
}

TEST_CASE("quantize: a flipped bit of any tensor is refused, not given a checksum of its own") {
  const test::TemporaryDirectory directory;
  const std::string original = directory.file("original"), out = directory.file("out");
  for (const DType from : {DType::kF32, DType::kQ8, DType::kQ4}) {
    init_model(parse_config(kConfig), original, {.dtype = from, .seed = 3});
    const std::vector<std::byte> valid = test::read_all(original);
    const WeightFile sound = WeightFile::open(original);
    for (const TensorInfo& tensor : sound.tensors()) {
      CAPTURE(tensor.name);
      std::vector<std::byte> flipped = valid;
      flipped[tensor.offset] ^= std::byte{1};
      const WeightFile file = WeightFile::open(directory.write("damaged", flipped));
      for (const DType to : {from, DType::kQ8}) {
        test::expect_error(ErrorCode::kBadFile, "tensor '" + tensor.name + "' is damaged",
                           [&] { quantize_model(file, out, {.dtype = to}); });
      }
      CHECK_FALSE(std::filesystem::exists(out));
    }
  }
}

TEST_CASE("quantize: kinds of layer have names; norms have no weights") {
  for (std::size_t k = 0; k < kLayerKinds; ++k) {
    const auto kind = static_cast<LayerKind>(k);
    CHECK(parse_layer_kind(layer_kind_name(kind)) == kind);
  }
  test::expect_error(ErrorCode::kBadArgument, "controller", [] { parse_layer_kind("router"); });
  WeightDTypes dtypes = DType::kQ8;
  test::expect_error(ErrorCode::kBadArgument, "norm", [&] { dtypes.set(LayerKind::kNorm, DType::kQ4); });
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
