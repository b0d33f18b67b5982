// SPDX-License-Identifier: Apache-2.0
#include "models/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <span>

#include "engine/error.h"
#include "engine/row_codec.h"
#include "engine/thread_team.h"
#include "engine/weight_writer.h"
#include "models/token_cost.h"

namespace terrace {
namespace {

constexpr std::uint64_t kPieceElements = 1U << 20;
constexpr std::uint32_t kChunksPerThread = 4;

/// Squared sums of a piece: of the weights, and of what storing them changed.
struct Sums {
  double weight = 0;
  double error = 0;
};

class Quantizer {
 public:
  Quantizer(const Model& model, const std::string& path, const QuantizeOptions& options)
      : model_(model),
        path_(path),
        options_(options),
        plan_(tensor_plan(model.config())),
        team_(options.n_threads),
        writer_(path, specs(), metadata()) {}

  std::vector<QuantizedTensor> run() && {
    std::vector<QuantizedTensor> report;
    for (const PlannedTensor& tensor : plan_) {
      if (!present(tensor)) continue;
      if (tensor.is_weight) {
        report.push_back(convert(tensor));
      } else {
        copy(tensor.name);
      }
    }
    if (model_.file().find(kTokenizerData)) copy(std::string(kTokenizerData));
    writer_.commit();
    return report;
  }

 private:
  /// Optional biases of the plan may be missing in the file.
  bool present(const PlannedTensor& tensor) const { return model_.file().find(tensor.name) != nullptr; }

  DType target(const PlannedTensor& tensor) const {
    const auto other = options_.by_kind.find(tensor.kind);
    return stored_dtype(tensor, other == options_.by_kind.end() ? options_.dtype : other->second);
  }

  std::vector<TensorSpec> specs() const {
    std::vector<TensorSpec> all;
    for (const PlannedTensor& tensor : plan_) {
      if (!present(tensor)) continue;
      auto stored = weight_specs(tensor.name, tensor.is_weight ? target(tensor) : DType::kF32, tensor.shape);
      std::move(stored.begin(), stored.end(), std::back_inserter(all));
    }
    if (const TensorInfo* data = model_.file().find(kTokenizerData)) {
      all.push_back({data->name, data->type, data->shape});
    }
    return all;
  }

  std::map<std::string, std::string> metadata() const {
    std::map<std::string, std::string> kept;
    for (const auto& [key, value] : model_.file().metadata()) {
      if (key != "checksums" && key != "format" && key != "format_version") kept[key] = value;
    }
    return kept;
  }

  void copy(const std::string& name) {
    const std::span<const std::byte> bytes = model_.file().data(model_.file().get(name));
    writer_.write(name, bytes);
    advance(bytes.size());
  }

  QuantizedTensor convert(const PlannedTensor& tensor) {
    const WeightView from = model_.file().weight(tensor.name);
    const DType dtype = target(tensor);
    QuantizedTensor result{tensor.name, tensor.kind, dtype, 0, 0};
    Sums sums;
    const std::size_t rows_per_piece = std::max<std::size_t>(1, kPieceElements / from.cols);
    for (std::size_t begin = 0; begin < from.rows; begin += rows_per_piece) {
      const WeightView piece = from.slice_rows(begin, std::min(rows_per_piece, from.rows - begin));
      const Sums part = convert_rows(piece, dtype);
      TERRACE_CHECK(
          std::isfinite(part.weight), kBadFile,
          fmt::format("{}: tensor '{}' holds values that are not finite; 'terrace verify' lists them",
                      model_.file().label(), tensor.name));
      sums.weight += part.weight;
      sums.error += part.error;
      writer_.write(tensor.name, data_);
      if (!scale_.empty()) writer_.write(tensor.name + std::string(kScaleSuffix), scale_);
      result.bytes += data_.size() + scale_.size();
      advance(piece.bytes());
    }
    result.relative_error = sums.weight > 0 ? std::sqrt(sums.error / sums.weight) : 0;
    return result;
  }

  Sums convert_rows(const WeightView& from, DType dtype) {
    const std::size_t n = from.cols;
    const std::size_t data_bytes = row_bytes(dtype, n);
    const std::size_t scale_bytes = row_scale_bytes(dtype, n);
    data_.resize(from.rows * data_bytes);
    scale_.resize(from.rows * scale_bytes);
    const auto n_chunks =
        static_cast<std::uint32_t>(std::min<std::size_t>(from.rows, kChunksPerThread * team_.size()));
    std::vector<Sums> sums(n_chunks);
    std::vector<std::vector<float>> scratch(n_chunks, std::vector<float>(2 * n));
    const ThreadTeam::Region region(team_);
    team_.run(n_chunks, [&](std::uint32_t chunk) {
      float* row = scratch[chunk].data();
      float* stored = row + n;
      for (std::size_t r = from.rows * chunk / n_chunks; r < from.rows * (chunk + 1) / n_chunks; ++r) {
        decode_row(from.dtype, from.row(r), from.row_scale(r), n, row);
        if (!std::all_of(row, stored, [](float w) { return std::isfinite(w); })) {
          sums[chunk].weight = INFINITY;
          continue;
        }
        std::byte* data = data_.data() + r * data_bytes;
        std::byte* scale = scale_.data() + r * scale_bytes;
        encode_row(dtype, row, n, data, scale);
        decode_row(dtype, data, scale, n, stored);
        for (std::size_t i = 0; i < n; ++i) {
          const double difference = static_cast<double>(row[i]) - stored[i];
          sums[chunk].weight += static_cast<double>(row[i]) * row[i];
          sums[chunk].error += difference * difference;
        }
      }
    });
    Sums total;
    for (const Sums& part : sums) {
      total.weight += part.weight;
      total.error += part.error;
    }
    return total;
  }

  void advance(std::uint64_t bytes) {
    done_ += bytes;
    TERRACE_CHECK(!options_.progress || options_.progress(done_, model_.file().file_bytes()), kCancelled,
                  "writing '" + path_ + "' was stopped");
  }

  const Model& model_;
  const std::string& path_;
  const QuantizeOptions& options_;
  std::vector<PlannedTensor> plan_;
  ThreadTeam team_;
  WeightWriter writer_;
  std::vector<std::byte> data_;
  std::vector<std::byte> scale_;
  std::uint64_t done_ = 0;
};

}  // namespace

std::vector<QuantizedTensor> quantize_model(const Model& model, const std::string& path,
                                            const QuantizeOptions& options) {
  return Quantizer(model, path, options).run();
}

}  // namespace terrace
