// SPDX-License-Identifier: Apache-2.0
// terrace inspect: what is in a model file and what one token reads of it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/isa.h"
#include "models/model.h"
#include "models/model_cost.h"
#include "tools/common/command.h"
#include "tools/common/json_text.h"
#include "tools/common/output.h"
#include "tools/common/table.h"

namespace terrace::tools {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string file;
  bool json = false;
};

/// "f32", "q4", ... for weights; the container's type ("U8") for anything else.
std::string dtype_of(const TensorInfo& tensor) {
  const auto dtype = weight_dtype(tensor);
  return dtype ? dtype_name(*dtype) : stored_type_name(tensor.type);
}

Json as_json(const LayerCost& cost) {
  return {{"parameters", cost.parameters},
          {"touched_per_token", cost.touched},
          {"stored_bytes", cost.stored_bytes},
          {"bytes_per_token", cost.touched_bytes}};
}

/// The tokenizer's description in the file, with its number of ids.
Json tokenizer_json(const Model& model) {
  const std::string* text = model.file().metadata("tokenizer");
  Json tokenizer = text != nullptr ? Json::parse(*text) : Json{{"kind", "none"}};
  tokenizer["vocab_size"] = model.tokenizer().vocab_size();
  return tokenizer;
}

std::string describe_json(const Model& model, const ModelCost& cost) {
  Json metadata = Json::object();
  for (const char* key : {"name", "source", "license"}) {
    if (const std::string* value = model.file().metadata(key)) metadata[key] = *value;
  }
  Json kinds = Json::object();
  for (std::size_t k = 0; k < kLayerKinds; ++k) {
    kinds[layer_kind_name(static_cast<LayerKind>(k))] = as_json(cost.by_kind[k]);
  }
  Json tensors = Json::array();
  for (const TensorInfo& tensor : model.file().tensors()) {
    tensors.push_back({{"name", tensor.name},
                       {"dtype", dtype_of(tensor)},
                       {"shape", weight_shape(tensor)},
                       {"bytes", tensor.bytes}});
  }
  const Json description = {{"file", model.file().label()},
                            {"bytes", model.file().file_bytes()},
                            {"metadata", metadata},
                            {"config", Json::parse(config_to_json(model.config()))},
                            {"tokenizer", tokenizer_json(model)},
                            {"total", as_json(cost.total)},
                            {"active_weight_share", cost.active_share()},
                            {"layer_kinds", kinds},
                            {"tensors", tensors}};
  return json_text(description);
}

std::string describe_costs(const ModelCost& cost) {
  Table table({{"layers", Table::Align::kLeft},
               {"parameters"},
               {"read/token"},
               {"%"},
               {"MB stored"},
               {"MB read/token"}});
  const auto add = [&table](const char* name, const LayerCost& part) {
    if (part.parameters == 0) return;
    const double share = 100 * static_cast<double>(part.touched) / static_cast<double>(part.parameters);
    table.add_row({name, std::to_string(part.parameters), std::to_string(part.touched),
                   fmt::format("{:.1f}", share),
                   fmt::format("{:.2f}", static_cast<double>(part.stored_bytes) / 1e6),
                   fmt::format("{:.3f}", static_cast<double>(part.touched_bytes) / 1e6)});
  };
  for (std::size_t k = 0; k < kLayerKinds; ++k)
    add(layer_kind_name(static_cast<LayerKind>(k)), cost.by_kind[k]);
  add("all", cost.total);
  return table.markdown();
}

std::string describe_tensors(const WeightFile& file) {
  Table table({{"tensor", Table::Align::kLeft}, {"dtype", Table::Align::kLeft}, {"shape"}, {"bytes"}});
  for (const TensorInfo& tensor : file.tensors()) {
    table.add_row({tensor.name, dtype_of(tensor), fmt::format("{}", fmt::join(weight_shape(tensor), " x ")),
                   std::to_string(tensor.bytes)});
  }
  return table.markdown();
}

std::string describe_text(const Model& model, const ModelCost& cost) {
  std::string text =
      fmt::format("file       {}, {} bytes\n", model.file().label(), model.file().file_bytes());
  for (const char* key : {"name", "source", "license"}) {
    if (const std::string* value = model.file().metadata(key))
      text += fmt::format("{:<10} {}\n", key, *value);
  }
  text += fmt::format("tokenizer  {}\n", tokenizer_json(model).dump());
  text += fmt::format("config     {}\n", Json::parse(config_to_json(model.config())).dump());
  text += "\n" + describe_costs(cost) + "\n" + describe_tensors(model.file());
  return text;
}

void run(const Options& options) {
  // No kernel runs, so what TERRACE_ISA asks for does not matter.
  const auto model = Model::load(options.file, {.isa = Isa::kScalar});
  const ModelCost cost = model_cost(*model);
  write_stdout(options.json ? describe_json(*model, cost) : describe_text(*model, cost));
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("inspect", "Print configuration, tokenizer, tensors and what a token reads of them");
  command->add_option("file", options->file, "Model file")->required();
  command->add_flag("--json", options->json, "Print as JSON");
  command->callback([options, &action] { action = [options] { run(*options); }; });
}

}  // namespace terrace::tools
