// SPDX-License-Identifier: Apache-2.0
#include "models/init.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "engine/dtype.h"
#include "engine/verify.h"
#include "engine/weight_file.h"
#include "models/model.h"
#include "models/presets.h"
#include "models/random_weights.h"
#include "models/session.h"
#include "models/token_cost.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace terrace {
namespace {

using test::TemporaryDirectory;

constexpr DType kAllDTypes[] = {DType::kF32, DType::kBf16, DType::kQ8, DType::kQ4};

/// A sparse model with every kind of tensor that a preset has, small enough to be made in a moment.
ModelConfig small_config() {
  ModelConfig config = preset_config("c4-medium", /*dense=*/false);
  config.d_model = 128;
  config.d_ff = 512;
  config.n_heads = 4;
  config.vocab_size = 300;
  config.encoder->vocab_size = 300;
  config.encoder->n_layers = 1;
  config.encoder->position.max_len = 50;
  config.decoder.n_layers = 2;
  config.decoder.position.max_len = 50;
  config.decoder.attention[0].n_modules = 4;
  config.encoder->reversible = false;
  return config;
}

float element(const WeightView& w, std::size_t r, std::size_t c) {
  switch (w.dtype) {
    case DType::kF32:
      return reinterpret_cast<const float*>(w.row(r))[c];
    case DType::kBf16:
      return bf16_to_f32(reinterpret_cast<const std::uint16_t*>(w.row(r))[c]);
    case DType::kQ8:
      return static_cast<const float*>(w.scale)[r] *
             static_cast<float>(reinterpret_cast<const std::int8_t*>(w.row(r))[c]);
    case DType::kQ4:
      break;
  }
  const std::size_t run = c / 64;
  const std::size_t in_run = c % 64;
  const auto byte = std::to_integer<unsigned>(w.row(r)[32 * run + in_run % 32]);
  const unsigned nibble = in_run < 32 ? byte & 15U : byte >> 4;
  const float scale = bf16_to_f32(reinterpret_cast<const std::uint16_t*>(w.row_scale(r))[c / 32]);
  return scale * (static_cast<float>(nibble) - 8);
}

TEST_CASE("The file holds exactly the tensors of the plan, sound, with the configuration inside") {
  const TemporaryDirectory directory;
  const ModelConfig config = small_config();
  for (const DType dtype : kAllDTypes) {
    CAPTURE(std::string(dtype_name(dtype)));
    const std::string path = directory.file("model");
    init_model(config, path, {.dtype = dtype, .seed = 3, .name = "small"});
    const WeightFile file = WeightFile::open(path);
    CHECK(config_to_json(parse_config(*file.metadata("config"))) == config_to_json(config));
    CHECK(*file.metadata("name") == "small");
    CHECK(file.metadata("tokenizer") != nullptr);
    CHECK(verify(file).problems.empty());
    std::size_t n_tensors = 0;
    for (const PlannedTensor& tensor : tensor_plan(config)) {
      CAPTURE(tensor.name);
      const TensorInfo& stored = file.get(tensor.name);
      CHECK(weight_shape(stored) == tensor.shape);
      CHECK(weight_dtype(stored) == stored_dtype(tensor, dtype));
      const TensorInfo* scale = file.find(tensor.name + ".scale");
      CHECK(stored.bytes + (scale ? scale->bytes : 0) == stored_bytes(tensor, stored_dtype(tensor, dtype)));
      n_tensors += scale ? 2 : 1;
    }
    CHECK(file.tensors().size() == n_tensors);
  }
}

TEST_CASE("Seed and dtype decide every byte, the number of threads none") {
  const TemporaryDirectory directory;
  const ModelConfig config = small_config();
  for (const DType dtype : kAllDTypes) {
    const auto bytes = [&](std::uint64_t seed, unsigned n_threads) {
      init_model(config, directory.file("model"), {.dtype = dtype, .seed = seed, .n_threads = n_threads});
      return test::read_all(directory.file("model"));
    };
    const auto once = bytes(1, 1);
    CHECK(once == bytes(1, 1));
    CHECK(once == bytes(1, 3));
    CHECK(once != bytes(2, 1));
  }
}

TEST_CASE("Every dtype of one seed holds the same weights up to its rounding") {
  const TemporaryDirectory directory;
  ModelConfig config = small_config();
  config.decoder.ff.d_lowrank = 64;  // every row fits q4
  init_model(config, directory.file("f32"), {.dtype = DType::kF32});
  const WeightFile exact = WeightFile::open(directory.file("f32"));
  for (const DType dtype : {DType::kBf16, DType::kQ8, DType::kQ4}) {
    CAPTURE(std::string(dtype_name(dtype)));
    init_model(config, directory.file("other"), {.dtype = dtype});
    const WeightFile file = WeightFile::open(directory.file("other"));
    for (const char* name :
         {"decoder.blocks.1.ff.units", "encoder.embedding", "decoder.blocks.0.ff.controller.up"}) {
      CAPTURE(std::string(name));
      const WeightView a = exact.weight(name);
      const WeightView b = file.weight(name);
      REQUIRE(a.rows == b.rows);
      double worst = 0;
      double largest = 0;
      for (std::size_t r = 0; r < 10; ++r) {
        for (std::size_t c = 0; c < a.cols; ++c) {
          worst = std::max<double>(worst, std::abs(element(a, r, c) - element(b, r, c)));
          largest = std::max<double>(largest, std::abs(element(a, r, c)));
        }
      }
      // Half a step (bf16: 2^-8 of the value; q8: 1/254, q4: 1/14 of the cut, which may lie above the largest
      // seen; q4's scale is rounded to bf16 as well).
      const double bound = dtype == DType::kBf16 ? 1.0 / 256 : dtype == DType::kQ8 ? 0.8 / 127 : 0.8 / 7;
      CHECK(worst <= bound * largest);
      CHECK(worst > 0);
    }
  }
}

TEST_CASE("Random weights have the mean and the deviation asked for, row by row of either kind") {
  constexpr std::uint64_t kColumns = 4096;
  for (const DType dtype : kAllDTypes) {
    CAPTURE(std::string(dtype_name(dtype)));
    const RandomWeights random(7, "w", dtype, kColumns, {0, {0.5F, 2.0F}});
    std::vector<std::byte> data(2 * random.row_bytes());
    std::vector<std::byte> scale(2 * random.scale_bytes());
    for (std::uint64_t r = 0; r < 2; ++r) {
      random.fill_row(r, data.data() + r * random.row_bytes(), scale.data() + r * random.scale_bytes());
    }
    const WeightView view{data.data(), scale.empty() ? nullptr : scale.data(), 2, kColumns, kColumns, dtype};
    for (std::size_t r = 0; r < 2; ++r) {
      double sum = 0, squares = 0, neighbours = 0;
      for (std::size_t c = 0; c < kColumns; ++c) {
        const double w = element(view, r, c);
        sum += w;
        squares += w * w;
        if (c > 0) neighbours += w * element(view, r, c - 1);
      }
      const double std = r == 0 ? 0.5 : 2.0;
      CHECK(std::abs(sum / kColumns) < 4 * std / std::sqrt(kColumns));
      CHECK(std::sqrt(squares / kColumns) == doctest::Approx(std).epsilon(0.05));
      CHECK(std::abs(neighbours / kColumns) < 4 * std * std / std::sqrt(kColumns));
    }
  }
  const RandomWeights ones(7, "scale", DType::kF32, 5, {1, {0, 0}});
  float values[5];
  ones.fill_row(0, reinterpret_cast<std::byte*>(values), nullptr);
  for (const float value : values) CHECK(value == 1);
  test::expect_error(ErrorCode::kBadArgument, "mean 0", [] {
    RandomWeights(7, "w", DType::kQ8, 64, {1, {0, 0}});
  });
}

TEST_CASE("Progress ends at the total; stopping leaves no file") {
  const TemporaryDirectory directory;
  std::uint64_t last = 0;
  std::uint64_t total = 0;
  const auto watch = [&](std::uint64_t done, std::uint64_t all) {
    CHECK(done >= last);
    last = done;
    total = all;
    return true;
  };
  init_model(small_config(), directory.file("model"), {.progress = watch});
  CHECK(last == total);
  CHECK(total > 0);
  std::filesystem::remove(directory.file("model"));

  const auto stop = [](std::uint64_t done, std::uint64_t all) { return done < all / 2; };
  test::expect_error(ErrorCode::kCancelled, "was stopped",
                     [&] { init_model(small_config(), directory.file("model"), {.progress = stop}); });
  CHECK(directory.names().empty());
}

TEST_CASE(
    "Activations stay of size 1: the logits of a random model spread like a standard normal at any depth") {
  const TemporaryDirectory directory;
  for (const char* name : {"lm-default", "llama-0.8B"}) {
    for (const std::uint32_t n_layers : {2U, 24U}) {
      for (const bool dense : {true, false}) {
        if (!dense && !find_preset(name).sparse) continue;
        CAPTURE(std::string(name));
        CAPTURE(n_layers);
        CAPTURE(dense);
        ModelConfig config = preset_config(name, dense);
        config.d_model = 256;
        config.d_ff = 1024;
        config.n_heads = 4;
        config.vocab_size = 1000;
        config.max_context = 64;
        config.decoder.n_layers = n_layers;
        init_model(config, directory.file("model"), {.seed = 5});
        Runtime runtime({.n_threads = 1});
        Session session(Model::load(directory.file("model")), runtime);
        double squares = 0;
        for (TokenId id = 0; id < 8; ++id) {
          squares = 0;
          for (const float logit : session.decode(id)) squares += static_cast<double>(logit) * logit;
        }
        const double size = std::sqrt(squares / config.vocab_size);
        CHECK(size > 0.5);
        CHECK(size < 2);
      }
    }
  }
}

/// Resident anonymous memory of this process in bytes; 0 where the system does not say.
std::uint64_t anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::uint64_t kilobytes = 0;
    if (word == "RssAnon:" && status >> kilobytes) return 1024 * kilobytes;
  }
  return 0;
}

TEST_CASE("Memory stays small whatever the size of the model") {
  const TemporaryDirectory directory;
  ModelConfig config = preset_config("lm-17B", /*dense=*/false);
  config.decoder.n_layers = 1;
  // One layer of lm-17B in q4, 0.8 GB: stopped after the first 300 MB, which lie in the middle of its largest
  // tensor.
  const std::uint64_t before = anonymous_bytes();
  std::uint64_t peak = before;
  const auto watch = [&](std::uint64_t done, std::uint64_t) {
    peak = std::max(peak, anonymous_bytes());
    return done < (100U << 20);
  };
  test::expect_error(ErrorCode::kCancelled, "was stopped", [&] {
    init_model(config, directory.file("model"), {.dtype = DType::kQ4, .progress = watch});
  });
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(peak - before < (64U << 20));
#endif
}

}  // namespace
}  // namespace terrace
