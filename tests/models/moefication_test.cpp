// SPDX-License-Identifier: Apache-2.0
#include "models/moefication.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>

#include "engine/weight_writer.h"
#include "models/balanced_clusters.h"
#include "models/expert_cut.h"
#include "models/init.h"
#include "models/ridge_regression.h"
#include "models/session.h"
#include "tests/support/expect_error.h"
#include "tests/support/layer_runs.h"
#include "tests/support/random.h"
#include "tests/support/stored_weight.h"
#include "tests/support/temporary_directory.h"

namespace terrace {
namespace {

using test::expect_error;
using test::Random;
using test::read_all;
using test::TemporaryDirectory;
using test::TestExec;

const char* const kPlain =
    R"({"family":"transformer_lm","d_model":64,"d_ff":128,"n_heads":4,"vocab_size":96,"max_context":64,
        "decoder":{"n_layers":2,"position":{"kind":"learned","max_len":64},"attention":[{"kind":"dot_product"}],
        "ff":{"kind":"dense","activation":"relu","widths":[64,128]}}})";
const char* const kGated =
    R"({"family":"transformer_lm","d_model":64,"d_ff":128,"n_heads":4,"vocab_size":96,"max_context":64,
        "norm":{"kind":"rms_norm"},"decoder":{"n_layers":2,"position":{"kind":"none"},
        "attention":[{"kind":"dot_product","rotary":{}}],
        "ff":{"kind":"dense","activation":"relu","gated":true,"sru":{"n_layers":1,"width":8}}}})";
const char* const kRouted =
    R"({"family":"transformer_lm","d_model":64,"d_ff":128,"n_heads":4,"vocab_size":96,"max_context":64,
        "decoder":{"n_layers":2,"position":{"kind":"learned","max_len":64},
        "mixture_of_depths":{"every":2,"capacity":0.5},"attention":[{"kind":"dot_product"}],
        "ff":{"kind":"dense","activation":"relu"}}})";

std::vector<TokenId> some_text(std::size_t n) {
  Random random(5);
  std::vector<TokenId> ids(n);
  for (TokenId& id : ids) id = random.integer(0, 95);
  return ids;
}

std::vector<float> logits_of(const std::string& path, std::optional<std::uint32_t> width = std::nullopt) {
  Runtime runtime({.n_threads = 1});
  Session session(Model::load(path), runtime);
  if (width) session.set_width(std::vector<std::uint32_t>{*width});
  session.prefill(std::vector<TokenId>{1, 17, 90, 3, 55});
  return {session.logits().begin(), session.logits().end()};
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(double{a[i]} - b[i]));
  return largest;
}

TEST_CASE(
    "moefy: with all experts in use it is the dense model, with fewer nearly, whatever it learned from") {
  const TemporaryDirectory directory;
  const std::vector<TokenId> text = some_text(600);
  for (const char* config : {kPlain, kGated, kRouted}) {
    for (const bool learns : {false, true}) {
      CAPTURE(config);
      CAPTURE(learns);
      const std::string dense = directory.file("dense"), cut = directory.file("cut");
      init_model(parse_config(config), dense, {.seed = 7});
      Runtime runtime({.n_threads = 2});
      MoefyOptions options{.n_experts = 16, .n_active = 12};
      if (learns) options.text = text;
      const auto lost = moefy_model(*Model::load(dense), runtime, cut, options);

      const auto model = Model::load(cut);
      CHECK(model->config().decoder.ff.kind == FeedForwardConfig::Kind::kExperts);
      CHECK(model->config().decoder.ff.widths.empty());
      const auto expected = logits_of(dense);
      CHECK(distance(logits_of(cut, 128), expected) < 2e-5);
      const double at_default = distance(logits_of(cut), expected);
      CHECK(at_default == distance(logits_of(cut, 96), expected));
      CHECK(at_default > 1e-4);
      CHECK(at_default < distance(logits_of(cut, 8), expected));

      REQUIRE(lost.size() == 2);
      for (std::size_t i = 0; i < 2; ++i) {
        const MoefiedBlock& block = lost[i];
        // Too few tokens run the routed block to learn from them.
        const bool measured = learns && !(config == kRouted && i == 1);
        CHECK((block.n_tokens > 0) == measured);
        if (!measured) continue;
        CHECK(block.active_units > 0.3);  // of random weights about half
        CHECK(block.active_units < 0.7);
        CHECK(block.kept > 0.75);  // 12 of 16 at random
        CHECK(block.kept <= block.kept_best);
        CHECK(block.kept_best < 1);
        CHECK(block.error > 0);
        CHECK(block.error < 0.75);
      }
    }
  }
}

TEST_CASE("moefy: the number of threads changes no byte of the file") {
  const TemporaryDirectory directory;
  const std::vector<TokenId> text = some_text(400);
  const std::string dense = directory.file("dense");
  init_model(parse_config(kPlain), dense, {.dtype = DType::kBf16, .seed = 7});
  const auto model = Model::load(dense);
  std::vector<std::vector<std::byte>> files;
  for (const unsigned n_threads : {1U, 3U}) {
    Runtime runtime({.n_threads = n_threads});
    const std::string path = directory.file("cut");
    moefy_model(*model, runtime, path, {.n_experts = 8, .n_active = 2, .text = text});
    files.push_back(read_all(path));
  }
  CHECK(files[0] == files[1]);
}

TEST_CASE("moefy: dtypes, and tensors that are no feed-forward layer keep their bytes") {
  const TemporaryDirectory directory;
  const std::string dense = directory.file("dense"), cut = directory.file("cut");
  Runtime runtime({.n_threads = 2});
  for (const DType from : {DType::kF32, DType::kQ8, DType::kQ4}) {
    for (const std::optional<DType> to : {std::optional<DType>(), std::optional(DType::kQ4)}) {
      init_model(parse_config(kPlain), dense, {.dtype = from, .seed = 7});
      moefy_model(*Model::load(dense), runtime, cut, {.n_experts = 8, .n_active = 2, .dtype = to});
      const WeightFile before = WeightFile::open(dense), after = WeightFile::open(cut);
      CHECK(after.weight("decoder.blocks.1.ff.units").dtype == to.value_or(from));
      for (const char* name : {"decoder.embedding", "decoder.blocks.1.attention.0.q.weight"}) {
        const auto a = before.data(before.get(name)), b = after.data(after.get(name));
        CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
      }
      for (const float z : logits_of(cut)) CHECK(std::isfinite(z));
    }
  }
}

TEST_CASE("moefy: what it cannot cut is refused, and a stop leaves the target alone") {
  const TemporaryDirectory directory;
  const std::string dense = directory.file("dense"), out = directory.file("out");
  std::ofstream(out) << "precious";
  const auto before = read_all(out);
  Runtime runtime({.n_threads = 1});
  init_model(parse_config(kPlain), dense, {.seed = 7});
  const auto model = Model::load(dense);
  const std::vector<TokenId> text = some_text(300);
  const auto refuse = [&](ErrorCode code, const char* part, const Model& from, const MoefyOptions& options) {
    expect_error(code, part, [&] { moefy_model(from, runtime, out, options); });
    CHECK(read_all(out) == before);
  };
  refuse(ErrorCode::kBadArgument, "7 experts do not divide the 128 units", *model,
         {.n_experts = 7, .n_active = 1});
  refuse(ErrorCode::kBadArgument, "0 experts", *model, {.n_experts = 0, .n_active = 1});
  refuse(ErrorCode::kBadArgument, "9 active experts", *model, {.n_experts = 8, .n_active = 9});
  refuse(ErrorCode::kBadArgument, "the text has 5 tokens", *model,
         {.n_experts = 8, .n_active = 2, .text = std::span(text).first(5)});
  const std::vector<TokenId> foreign(300, 96);
  refuse(ErrorCode::kBadToken, "96", *model, {.n_experts = 8, .n_active = 2, .text = foreign});
  for (const bool learns : {false, true}) {
    MoefyOptions options{.n_experts = 8, .n_active = 2};
    if (learns) options.text = text;
    options.progress = [](std::uint64_t done, std::uint64_t total) {
      CHECK(done <= total);
      return done < total / 2;
    };
    refuse(ErrorCode::kCancelled, "stopped", *model, options);
  }
  for (const char* ff : {R"({"kind":"dense","activation":"silu","gated":true})",
                         R"({"kind":"sparse","block_size":8,"d_lowrank":8})"}) {
    const std::string config =
        R"({"family":"transformer_lm","d_model":64,"d_ff":128,"n_heads":4,"vocab_size":96,"max_context":64,
            "decoder":{"n_layers":1,"position":{"kind":"none"},"attention":[{"kind":"dot_product"}],"ff":)" +
        std::string(ff) + "}}";
    init_model(parse_config(config), dense, {.seed = 7});
    refuse(ErrorCode::kUnsupported, "dense with activation relu", *Model::load(dense),
           {.n_experts = 8, .n_active = 2});
  }
}

TEST_CASE("moefy: a flipped bit of any tensor is refused, not given a checksum of its own") {
  const TemporaryDirectory directory;
  const std::string dense = directory.file("dense"), out = directory.file("out");
  Runtime runtime({.n_threads = 1});
  init_model(parse_config(kPlain), dense, {.dtype = DType::kQ8, .seed = 7});
  const std::vector<std::byte> valid = read_all(dense);
  const WeightFile sound = WeightFile::open(dense);
  for (const TensorInfo& tensor : sound.tensors()) {
    std::vector<std::byte> flipped = valid;
    flipped[tensor.offset] ^= std::byte{1};
    const auto model = Model::load(directory.write("damaged", flipped));
    expect_error(ErrorCode::kBadFile, "tensor '" + tensor.name + "' is damaged",
                 [&] { moefy_model(*model, runtime, out, {.n_experts = 8, .n_active = 2}); });
    CHECK_FALSE(std::filesystem::exists(out));
  }
}

/// A layer whose units come in families: those of one family see the same direction, and an input lies along
/// one of the directions.
struct Planted {
  static constexpr std::size_t kFamilies = 4, kMembers = 8, kD = 16, kRows = 512;

  explicit Planted(const std::string& path) {
    Random random(3);
    std::vector<float> w1(kFamilies * kMembers * kD), w2(w1.size());
    for (std::size_t u = 0; u < kFamilies * kMembers; ++u) {
      for (std::size_t i = 0; i < kD; ++i) {
        const bool own = i / 4 == family(u);
        w1[u * kD + i] = own ? 1 + random.uniform(-0.2F, 0.2F) : random.uniform(-0.05F, 0.05F);
      }
    }
    for (float& w : w2) w = random.uniform(-1, 1);
    x = random.floats(kRows * kD, -0.05F, 0.05F);
    for (std::size_t t = 0; t < kRows; ++t) {
      for (std::size_t i = 0; i < kD; ++i) x[t * kD + i] += i / 4 == t % kFamilies ? 1.0F : -0.5F;
    }
    auto specs = weight_specs("ff.w1.weight", DType::kF32, {kFamilies * kMembers, kD});
    const auto second = weight_specs("ff.w2.weight", DType::kF32, {kD, kFamilies * kMembers});
    specs.insert(specs.end(), second.begin(), second.end());
    WeightWriter writer(path, specs, {{"config", "{}"}, {"tokenizer", "{}"}});
    writer.write("ff.w1.weight", std::as_bytes(std::span(w1)));
    writer.write("ff.w2.weight", std::as_bytes(std::span(w2)));
    writer.commit();
  }
  /// Families do not lie side by side.
  static std::size_t family(std::size_t unit) { return unit % kFamilies; }

  std::vector<float> x;
};

TEST_CASE("moefy: units that are active together share an expert, and the router knows which") {
  const TemporaryDirectory directory;
  const Planted planted(directory.file("layer"));
  const WeightFile file = WeightFile::open(directory.file("layer"));
  const DenseKernels& kernels = dense_kernels(isa_from_environment());
  const DenseBlock block(file, kernels, "ff", false);
  TestExec exec(2);
  const MoefyOptions options{.n_experts = Planted::kFamilies, .n_active = 1};
  const auto check_families = [](const ExpertCut& cut) {
    for (std::size_t e = 0; e < Planted::kFamilies; ++e) {
      std::set<std::size_t> families;
      for (std::size_t i = 0; i < Planted::kMembers; ++i) {
        families.insert(Planted::family(cut.units[e * Planted::kMembers + i]));
      }
      CHECK(families.size() == 1);
    }
  };
  check_families(cut_by_weights(exec.get(), kernels, block, options));
  std::size_t rows_done = 0;
  const ExpertCut cut = cut_by_activations(exec.get(), kernels, block,
                                           {planted.x.data(), Planted::kRows, Planted::kD, Planted::kD},
                                           options, [&](std::size_t rows) { rows_done += rows; });
  check_families(cut);
  CHECK(rows_done == 2 * Planted::kRows);
  CHECK(cut.lost.n_tokens == Planted::kRows / 8);
  CHECK(cut.lost.active_units == doctest::Approx(0.25).epsilon(0.01));
  CHECK(cut.lost.kept == doctest::Approx(1).epsilon(1e-6));
  CHECK(cut.lost.kept_best == doctest::Approx(1).epsilon(1e-6));
  CHECK(cut.lost.error < 1e-3);
}

TEST_CASE("balanced_clusters: groups of equal size are found again") {
  Random random(11);
  constexpr std::size_t kClusters = 5, kSize = 6, kWidth = 24;
  std::vector<float> rows = random.floats(kClusters * kSize * kWidth, -0.3F, 0.3F);
  const std::vector<float> centers = random.floats(kClusters * kWidth);
  for (std::size_t r = 0; r < kClusters * kSize; ++r) {
    for (std::size_t i = 0; i < kWidth; ++i) rows[r * kWidth + i] += centers[r % kClusters * kWidth + i];
  }
  normalize_rows({rows.data(), kClusters * kSize, kWidth, kWidth});
  TestExec exec(1);
  const auto cluster = balanced_clusters(exec.get(), dense_kernels(isa_from_environment()),
                                         {rows.data(), kClusters * kSize, kWidth, kWidth}, kClusters, 1);
  for (std::size_t r = 0; r < cluster.size(); ++r) CHECK(cluster[r] == cluster[r % kClusters]);
  CHECK(std::set<std::uint32_t>(cluster.begin(), cluster.end()).size() == kClusters);
}

TEST_CASE("balanced_clusters: rows of zeros fill what is left") {
  const std::vector<float> rows(12 * 4);
  TestExec exec(1);
  const auto cluster =
      balanced_clusters(exec.get(), dense_kernels(isa_from_environment()), {rows.data(), 12, 4, 4}, 3, 1);
  for (std::uint32_t c = 0; c < 3; ++c) CHECK(std::count(cluster.begin(), cluster.end(), c) == 4);
}

TEST_CASE("fit_linear: a linear map is found again, and inputs that never vary do no harm") {
  Random random(2);
  constexpr std::size_t kIn = 7, kOut = 3, kSamples = 400;
  std::vector<float> x = random.floats(kIn * kSamples), y(kOut * kSamples);
  std::fill_n(x.begin() + 6 * kSamples, kSamples, 3.0F);  // the last input is a constant
  const std::vector<float> w = random.floats(kOut * kIn);
  for (std::size_t o = 0; o < kOut; ++o) {
    for (std::size_t s = 0; s < kSamples; ++s) {
      y[o * kSamples + s] = 0.5F;
      for (std::size_t i = 0; i < kIn; ++i) y[o * kSamples + s] += w[o * kIn + i] * x[i * kSamples + s];
    }
  }
  TestExec exec(2);
  const LinearFit fit =
      fit_linear(exec.get(), dense_kernels(isa_from_environment()), {x.data(), kIn, kSamples, kSamples},
                 {y.data(), kOut, kSamples, kSamples}, 1e-6);
  for (std::size_t o = 0; o < kOut; ++o) {
    for (std::size_t i = 0; i + 1 < kIn; ++i)
      CHECK(fit.weight[o * kIn + i] == doctest::Approx(w[o * kIn + i]).epsilon(1e-3));
    CHECK(fit.bias[o] + 3 * fit.weight[o * kIn + 6] ==
          doctest::Approx(0.5 + 3 * w[o * kIn + 6]).epsilon(1e-3));
  }
}

}  // namespace
}  // namespace terrace
