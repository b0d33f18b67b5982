// SPDX-License-Identifier: Apache-2.0
// terrace quantize: the same model with its weights in another dtype, and what that changed.
#include "models/quantize.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/runtime.h"
#include "tools/common/command.h"
#include "tools/common/dtype_argument.h"
#include "tools/common/interrupt.h"
#include "tools/common/model_arguments.h"
#include "tools/common/output.h"
#include "tools/common/progress.h"
#include "tools/common/table.h"

namespace terrace::tools {
namespace {

struct Options {
  std::string in;
  std::string out;
  std::string dtype = "q8";
  std::vector<std::string> kinds;
  unsigned threads = 0;
  bool all_tensors = false;
  bool json = false;
};

/// "attention=bf16" and the like.
std::map<LayerKind, DType> parse_kinds(const std::vector<std::string>& kinds) {
  std::map<LayerKind, DType> by_kind;
  for (const std::string& text : kinds) {
    const std::size_t equals = text.find('=');
    const std::string name = text.substr(0, equals);
    const std::string dtype = equals == std::string::npos ? "" : text.substr(equals + 1);
    bool known = false;
    for (std::size_t k = 0; k < kLayerKinds; ++k) {
      const auto kind = static_cast<LayerKind>(k);
      if (name != layer_kind_name(kind)) continue;
      known = true;
      by_kind[kind] = parse_dtype(dtype);
    }
    const auto& names = dtype_names();
    if (!known || std::find(names.begin(), names.end(), dtype) == names.end()) {
      throw UsageError(
          fmt::format("--kind: expected LAYER=TYPE with a layer of embedding, attention, feed_forward, sru, "
                      "logits, other and a "
                      "type of {}, found '{}'",
                      fmt::join(names, ", "), text));
    }
  }
  return by_kind;
}

/// Weights of one layer kind together.
struct KindTotal {
  std::uint64_t tensors = 0;
  std::uint64_t bytes = 0;
  double squared_error = 0;  ///< sum of squared relative errors
  double worst = 0;
  std::string worst_name;
};

std::array<KindTotal, kLayerKinds> totals(const std::vector<QuantizedTensor>& report) {
  std::array<KindTotal, kLayerKinds> by_kind;
  for (const QuantizedTensor& tensor : report) {
    KindTotal& total = by_kind[static_cast<std::size_t>(tensor.kind)];
    ++total.tensors;
    total.bytes += tensor.bytes;
    total.squared_error += tensor.relative_error * tensor.relative_error;
    if (tensor.relative_error >= total.worst) {
      total.worst = tensor.relative_error;
      total.worst_name = tensor.name;
    }
  }
  return by_kind;
}

std::string as_json(const std::vector<QuantizedTensor>& report) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const QuantizedTensor& tensor : report) {
    rows.push_back({{"tensor", tensor.name},
                    {"layer", layer_kind_name(tensor.kind)},
                    {"dtype", dtype_name(tensor.dtype)},
                    {"bytes", tensor.bytes},
                    {"relative_error", tensor.relative_error}});
  }
  return rows.dump(2) + "\n";
}

std::string percent(double x) { return fmt::format("{:.3f} %", 100 * x); }

std::string as_text(const std::vector<QuantizedTensor>& report, bool all_tensors) {
  using Align = Table::Align;
  if (all_tensors) {
    Table table({{"tensor", Align::kLeft}, {"type", Align::kLeft}, {"bytes"}, {"relative error"}});
    for (const QuantizedTensor& t : report) {
      table.add_row({t.name, dtype_name(t.dtype), fmt::format("{}", t.bytes), percent(t.relative_error)});
    }
    return table.markdown();
  }
  Table table(
      {{"layer", Align::kLeft}, {"weights"}, {"bytes"}, {"rms error"}, {"worst"}, {"tensor", Align::kLeft}});
  const auto by_kind = totals(report);
  for (std::size_t k = 0; k < kLayerKinds; ++k) {
    const KindTotal& total = by_kind[k];
    if (total.tensors == 0) continue;
    const double rms = std::sqrt(total.squared_error / static_cast<double>(total.tensors));
    table.add_row({layer_kind_name(static_cast<LayerKind>(k)), fmt::format("{}", total.tensors),
                   fmt::format("{}", total.bytes), percent(rms), percent(total.worst), total.worst_name});
  }
  return table.markdown();
}

void run(const Options& options) {
  const Interrupt interrupt;
  constexpr std::uint64_t kMega = 1'000'000;
  QuantizeOptions quantize;
  quantize.dtype = parse_dtype(options.dtype);
  quantize.by_kind = parse_kinds(options.kinds);
  quantize.n_threads = options.threads > 0 ? options.threads : Runtime::default_threads();
  const auto model = Model::load(options.in);
  Progress bar("quantize", model->file().file_bytes() / kMega, "MB");
  quantize.progress = [&bar](std::uint64_t done, std::uint64_t) {
    bar.update(done / kMega);
    return !Interrupt::requested();
  };
  const std::vector<QuantizedTensor> report = quantize_model(*model, options.out, quantize);
  write_stdout(options.json ? as_json(report) : as_text(report, options.all_tensors));
}

}  // namespace

void add_quantize(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("quantize", "Store a model's weights in another type");
  command->add_option("in", options->in, "Model file")->required();
  command->add_option("out", options->out, "Model file to write")->required();
  add_dtype(*command, options->dtype);
  command->add_option("--kind", options->kinds, "Another type for some layers: LAYER=TYPE, may be repeated")
      ->type_name("LAYER=TYPE");
  command->add_option("-t,--threads", options->threads, "Threads (default: one per physical core)")
      ->check(CLI::Range(1U, kMaxThreads))
      ->type_name("N");
  command->add_flag("--all-tensors", options->all_tensors, "Report every tensor, not each kind of layer");
  command->add_flag("--json", options->json, "Print the report as JSON");
  command->callback([options, &action] { action = [options] { run(*options); }; });
}

}  // namespace terrace::tools
