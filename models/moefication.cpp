// SPDX-License-Identifier: Apache-2.0
#include "models/moefication.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <numeric>
#include <set>

#include "engine/error.h"
#include "engine/quantize.h"
#include "engine/weight_writer.h"
#include "models/calibration.h"
#include "models/expert_cut.h"
#include "models/file_copy.h"
#include "models/network.h"
#include "models/tensor_plan.h"

namespace terrace {
namespace {

/// Rows of a calibration that are held at a time, of one block or of several.
constexpr std::size_t kCollectedBytes = std::size_t{1} << 30;
constexpr std::size_t kScratchBytes = std::size_t{4} << 30;  // reserved, not committed

std::string name_of(std::size_t block) { return fmt::format("decoder.blocks.{}.ff", block); }

void check_model(const Model& model, const MoefyOptions& options) {
  const ModelConfig& config = model.config();
  const FeedForwardConfig& ff = config.decoder.ff;
  const std::string& label = model.file().label();
  TERRACE_CHECK(
      ff.kind == FeedForwardConfig::Kind::kDense && ff.activation == Activation::kRelu, kUnsupported,
      label +
          ": its feed-forward layers cannot be cut into experts; they must be dense with activation relu, "
          "whose units are often 0");
  TERRACE_CHECK(!model.has_encoder() || options.text.empty(), kUnsupported,
                label + ": a text needs a language model; this one has an encoder (leave the text out)");
  TERRACE_CHECK(
      options.text.empty() || options.text.size() >= kLeastMoefyText, kBadArgument,
      fmt::format("the text has {} tokens, expected at least {}", options.text.size(), kLeastMoefyText));
  for (const Block& block : model.network().decoder().blocks()) {
    const std::size_t d_ff = block.ff().d_ff();
    TERRACE_CHECK(options.n_experts > 0 && d_ff % options.n_experts == 0, kBadArgument,
                  fmt::format("{} experts do not divide the {} units of a feed-forward layer",
                              options.n_experts, d_ff));
  }
  TERRACE_CHECK(
      options.n_active > 0 && options.n_active <= options.n_experts, kBadArgument,
      fmt::format("{} active experts asked for, expected 1 to {}", options.n_active, options.n_experts));
}

ModelConfig moefied(ModelConfig config, const MoefyOptions& options) {
  FeedForwardConfig& ff = config.decoder.ff;
  ff.kind = FeedForwardConfig::Kind::kExperts;
  ff.n_experts = options.n_experts;
  ff.n_active = options.n_active;
  ff.widths.clear();
  return config;
}

class Moefier {
 public:
  Moefier(const Model& model, Runtime& runtime, const std::string& path, const MoefyOptions& options)
      : model_(model),
        file_(model.file()),
        runtime_(runtime),
        path_(path),
        options_(options),
        kernels_(dense_kernels(model.isa())),
        blocks_(model.network().decoder().blocks()),
        cut_maps_(cut_maps(model.config())),
        workspace_(kScratchBytes),
        exec_{runtime.team(), workspace_},
        total_(3 * std::max<std::uint64_t>(1, options.text.size()) * blocks_.size()),
        writer_(path, specs(), metadata()) {}

  std::vector<MoefiedBlock> run() && {
    // Of those that are cut, which the model is about to use, only the checksums are of interest here.
    for (const TensorInfo& tensor : file_.tensors()) {
      if (is_cut(tensor.name)) {
        read_tensor(file_, tensor, [this](const auto&) { report(0); });
      } else {
        copy_tensor(file_, tensor, writer_, [this](std::size_t) { report(0); });
      }
    }
    std::vector<MoefiedBlock> lost;
    const std::size_t at_a_time =
        std::max<std::size_t>(1, kCollectedBytes / (options_.text.size() * row_of_most() + 1));
    for (std::size_t begin = 0; begin < blocks_.size(); begin += at_a_time) {
      const std::size_t end = std::min(blocks_.size(), begin + at_a_time);
      const std::vector<CollectedRows> rows = collect(begin, end);
      for (std::size_t i = begin; i < end; ++i) {
        lost.push_back(cut(i, rows.empty() ? ConstRows() : ConstRows(rows[i - begin].rows())));
      }
    }
    writer_.commit();
    return lost;
  }

 private:
  std::size_t row_of_most() const noexcept { return model_.network().decoder().max_width() * sizeof(float); }

  /// The linear maps that experts replace, which are all of a dense feed-forward layer.
  static std::set<std::string, std::less<>> cut_maps(const ModelConfig& config) {
    std::set<std::string, std::less<>> maps;
    for (const PlannedTensor& tensor : tensor_plan(config)) {
      if (tensor.block && tensor.kind == LayerKind::kFeedForward)
        maps.insert(tensor.name.substr(0, tensor.name.rfind('.')));
    }
    return maps;
  }

  /// Whether a tensor belongs to one of them; its bias may be one that the plan does without.
  bool is_cut(std::string_view name) const {
    if (name.ends_with(kScaleSuffix)) name.remove_suffix(kScaleSuffix.size());
    return cut_maps_.contains(name.substr(0, name.rfind('.')));
  }

  std::map<std::string, std::string> metadata() const {
    auto metadata = copied_metadata(file_);
    metadata["config"] = config_to_json(moefied(model_.config(), options_));
    return metadata;
  }

  DType dtype_of(std::size_t block) const {
    return options_.dtype.value_or(file_.weight(name_of(block) + ".w1.weight").dtype);
  }

  /// Of the router and the offsets, which are worth more bits than the units.
  DType small_dtype_of(std::size_t block) const {
    const DType dtype = dtype_of(block);
    return dtype == DType::kQ4 ? DType::kQ8 : dtype;
  }

  std::vector<TensorSpec> specs() const {
    std::vector<TensorSpec> all;
    for (const TensorInfo& tensor : file_.tensors()) {
      if (!is_cut(tensor.name)) all.push_back({tensor.name, tensor.type, tensor.shape});
    }
    const bool gated = model_.config().decoder.ff.gated;
    const std::uint64_t n_experts = options_.n_experts;
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const std::string name = name_of(i);
      const std::uint64_t d_ff = blocks_[i].ff().d_ff(), d = blocks_[i].ff().d_model();
      const std::uint64_t runs = gated ? 3 : 2;
      add_weight(all, name + ".router", small_dtype_of(i), {n_experts, d});
      all.push_back({name + ".router_bias", StoredType::kF32, {n_experts}});
      add_weight(all, name + ".units", dtype_of(i), {n_experts, runs, d_ff / n_experts, d});
      if (has_unit_bias(i)) all.push_back({name + ".unit_bias", StoredType::kF32, {d_ff}});
      add_weight(all, name + ".offsets", small_dtype_of(i), {n_experts, d});
      all.push_back({name + ".bias", StoredType::kF32, {d}});
    }
    return all;
  }

  static void add_weight(std::vector<TensorSpec>& all, const std::string& name, DType dtype,
                         std::vector<std::uint64_t> shape) {
    auto stored = weight_specs(name, dtype, std::move(shape));
    std::move(stored.begin(), stored.end(), std::back_inserter(all));
  }

  bool has_unit_bias(std::size_t block) const { return file_.find(name_of(block) + ".w1.bias") != nullptr; }

  std::vector<CollectedRows> collect(std::size_t begin, std::size_t end) {
    if (options_.text.empty()) return {};
    const std::uint64_t before = done_;
    auto rows = feed_forward_inputs(model_, runtime_, options_.text, begin, end, [&](std::size_t done) {
      done_ = before + done * (end - begin);
      return !options_.progress || options_.progress(done_, total_);
    });
    return rows;
  }

  MoefiedBlock cut(std::size_t i, ConstRows x) {
    const DenseBlock block(file_, kernels_, name_of(i), model_.config().decoder.ff.gated);
    for (std::size_t t = 0; t < x.n; ++t) {
      TERRACE_CHECK(std::all_of(x.row(t), x.row(t) + x.width, [](float v) { return std::isfinite(v); }),
                    kBadFile,
                    fmt::format("{}: block {} sees values that are not finite while the model reads the text",
                                file_.label(), i));
    }
    // A routed block may have seen too little to learn from.
    const ExpertCut cut = x.n < kLeastMoefyText
                              ? cut_by_weights(exec_, kernels_, block, options_)
                              : cut_by_activations(exec_, kernels_, block, x, options_,
                                                   [this](std::size_t rows) { report(rows); });
    write(i, block, cut);
    // Whatever the block has seen, it is done.
    done_ = total_ / blocks_.size() * (i + 1);
    report(0);
    return cut.lost;
  }

  void write(std::size_t i, const DenseBlock& block, const ExpertCut& cut) {
    const std::string name = name_of(i);
    const std::size_t n_units = block.d_ff() / options_.n_experts;
    for (std::size_t e = 0; e < options_.n_experts; ++e) {
      const std::span<const std::uint32_t> units(cut.units.data() + e * n_units, n_units);
      if (block.gated()) write_rows(name + ".units", dtype_of(i), block.gate(), units);
      write_rows(name + ".units", dtype_of(i), block.w1(), units);
      write_rows(name + ".units", dtype_of(i), block.w2(), units);
    }
    if (has_unit_bias(i)) {
      std::vector<float> bias;
      for (const std::uint32_t u : cut.units) bias.push_back(block.b1()[u]);
      write_floats(name + ".unit_bias", bias);
    }
    std::vector<float> bias = cut.bias;
    if (file_.find(name + ".w2.bias") != nullptr) {
      kernels_.add(bias.data(), file_.f32(name + ".w2.bias").data(), bias.size());
    }
    std::vector<std::uint32_t> all(options_.n_experts);
    std::iota(all.begin(), all.end(), 0U);
    const auto rows_of = [&](const std::vector<float>& values) {
      return ConstRows(values.data(), all.size(), block.d_model(), block.d_model());
    };
    write_rows(name + ".router", small_dtype_of(i), rows_of(cut.router), all);
    write_rows(name + ".offsets", small_dtype_of(i), rows_of(cut.offsets), all);
    write_floats(name + ".router_bias", cut.router_bias);
    write_floats(name + ".bias", bias);
  }

  /// Appends rows[indices[0]], rows[indices[1]], ... to a weight.
  void write_rows(const std::string& name, DType dtype, ConstRows rows,
                  std::span<const std::uint32_t> indices) {
    std::vector<std::byte> data(row_bytes(dtype, rows.width)), scale(row_scale_bytes(dtype, rows.width));
    for (const std::uint32_t i : indices) {
      store_row(dtype, {rows.row(i), rows.width}, data.data(), scale.data());
      writer_.write(name, data);
      if (!scale.empty()) writer_.write(name + std::string(kScaleSuffix), scale);
    }
  }

  void write_floats(const std::string& name, std::span<const float> values) {
    writer_.write(name, std::as_bytes(values));
  }

  void report(std::uint64_t rows) {
    done_ += rows;
    TERRACE_CHECK(!options_.progress || options_.progress(std::min(done_, total_), total_), kCancelled,
                  "writing '" + path_ + "' was stopped");
  }

  const Model& model_;
  const WeightFile& file_;
  Runtime& runtime_;
  const std::string& path_;
  const MoefyOptions& options_;
  const DenseKernels& kernels_;
  std::span<const Block> blocks_;
  std::set<std::string, std::less<>> cut_maps_;
  Workspace workspace_;
  Exec exec_;
  std::uint64_t done_ = 0;
  std::uint64_t total_;  ///< tokens through each block: read, fitted, fitted again
  WeightWriter writer_;
};

}  // namespace

std::vector<MoefiedBlock> moefy_model(const Model& model, Runtime& runtime, const std::string& path,
                                      const MoefyOptions& options) {
  check_model(model, options);
  return Moefier(model, runtime, path, options).run();
}

}  // namespace terrace
