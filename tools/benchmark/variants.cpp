// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmark/variants.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "engine/error.h"
#include "models/moefication.h"
#include "tools/common/command.h"

namespace terrace::tools {
namespace {

struct SweptParameter {
  std::string_view name;
  std::string_view meaning;
  void (*set)(ModelConfig& config, std::uint32_t value);
  bool of_dense = false;  ///< a parameter of what is made from the dense twin, not of the sparse variant
};

void cut_into_experts(ModelConfig& c, std::uint32_t n_experts) {
  FeedForwardConfig& ff = c.decoder.ff;
  if (ff.activation != Activation::kRelu) {
    throw UsageError("--sweep experts: this preset's dense feed-forward layers are not of the relu kind");
  }
  ff.kind = FeedForwardConfig::Kind::kExperts;
  ff.n_experts = n_experts;
  ff.n_active = std::max(1U, n_experts / kMoefyActivePart);
}

constexpr std::array kSweptParameters{
    SweptParameter{"block-size", "N, units per block of the feed-forward part",
                   [](ModelConfig& c, std::uint32_t value) { c.decoder.ff.block_size = value; }},
    SweptParameter{"rank", "d_lowrank of its controller",
                   [](ModelConfig& c, std::uint32_t value) { c.decoder.ff.d_lowrank = value; }},
    SweptParameter{"modules", "S of the multiplicative layer of q, k and v",
                   [](ModelConfig& c, std::uint32_t value) {
                     for (AttentionConfig& attention : c.decoder.attention) attention.n_modules = value;
                   }},
    SweptParameter{"output-modules", "S of the output layer",
                   [](ModelConfig& c, std::uint32_t value) { c.logits.n_modules = value; }},
    SweptParameter{"experts", "E of a dense feed-forward part cut by moefy, a quarter of them active",
                   cut_into_experts, /*of_dense=*/true},
};

ModelConfig sparse_decoder(const Preset& preset) {
  if (!preset.sparse) throw UsageError(fmt::format("--preset {}: it has no sparse variant", preset.name));
  return decoder_as_language_model(*preset.sparse);
}

const SweptParameter& find_parameter(std::string_view name) {
  const auto found = std::find_if(kSweptParameters.begin(), kSweptParameters.end(),
                                  [&](const SweptParameter& p) { return p.name == name; });
  if (found != kSweptParameters.end()) return *found;
  std::vector<std::string_view> names;
  names.reserve(std::size(kSweptParameters));
  for (const SweptParameter& p : kSweptParameters) names.push_back(p.name);
  throw UsageError(fmt::format("--sweep: expected one of {}, found '{}'", fmt::join(names, ", "), name));
}

}  // namespace

std::vector<PlannedModel> table1_models(const Preset& preset, Table1Rule rule) {
  const ModelConfig dense = decoder_as_language_model(preset.dense);
  const ModelConfig sparse = sparse_decoder(preset);
  const auto row = [&](const char* variant, bool ff, bool qkv, bool output) {
    ModelConfig c = dense;
    if (ff) c.decoder.ff = sparse.decoder.ff;
    if (qkv) c.decoder.attention = sparse.decoder.attention;
    if (output) c.logits = sparse.logits;
    if (rule == Table1Rule::kPreset && qkv) {
      c.d_ff = sparse.d_ff;
      c.decoder.n_layers = sparse.decoder.n_layers;  // lm-17B trades a block for wider ones
    }
    return PlannedModel{variant, std::move(c), 0};
  };
  return {row("dense", false, false, false), row("+FF", true, false, false), row("+QKV", false, true, false),
          row("+FF+QKV", true, true, false), row("+FF+QKV+output", true, true, true)};
}

Sweep parse_sweep(std::string_view text) {
  const std::size_t equals = std::min(text.find('='), text.size());
  Sweep sweep{std::string(find_parameter(text.substr(0, equals)).name), {}};
  std::string_view rest = text.substr(equals);
  while (!rest.empty()) {
    rest.remove_prefix(1);  // "=" or ","
    const std::string_view item = rest.substr(0, rest.find(','));
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), value);
    if (error != std::errc() || end != item.data() + item.size() || value == 0) {
      throw UsageError(fmt::format("--sweep {}: expected positive numbers, found '{}'", text, item));
    }
    sweep.values.push_back(value);
    rest.remove_prefix(item.size());
  }
  if (sweep.values.empty()) {
    throw UsageError(fmt::format("--sweep {}: expected values, as in {}=16,32", text, sweep.parameter));
  }
  return sweep;
}

std::string sweep_parameters_help() {
  std::string help;
  for (const SweptParameter& p : kSweptParameters) {
    help += fmt::format("{}{} ({})", help.empty() ? "" : ", ", p.name, p.meaning);
  }
  return help;
}

std::vector<PlannedModel> sweep_models(const Preset& preset, const Sweep& sweep) {
  const SweptParameter& parameter = find_parameter(sweep.parameter);
  const ModelConfig dense = decoder_as_language_model(preset.dense);
  const ModelConfig base = parameter.of_dense ? dense : sparse_decoder(preset);
  std::vector<PlannedModel> models{{"dense", dense, 0}};
  for (const std::uint32_t value : sweep.values) {
    PlannedModel model{fmt::format("{}={}", parameter.name, value), base, 0};
    parameter.set(model.config, value);
    try {
      validate(model.config);
    } catch (const Error& error) {
      throw UsageError(fmt::format("--sweep {}: {}", model.variant, error.what()));
    }
    models.push_back(std::move(model));
  }
  return models;
}

void keep_blocks(std::vector<PlannedModel>& models, std::uint32_t blocks) {
  for (PlannedModel& model : models) {
    if (blocks > model.config.decoder.n_layers) {
      throw UsageError(fmt::format("--blocks: expected at most the {} blocks of {}, found {}",
                                   model.config.decoder.n_layers, model.variant, blocks));
    }
    model.blocks_left_out = model.config.decoder.n_layers - blocks;
    model.config.decoder.n_layers = blocks;
  }
}

}  // namespace terrace::tools
