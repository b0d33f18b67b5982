// SPDX-License-Identifier: Apache-2.0
#include "models/quantize.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <iterator>
#include <map>
#include <string_view>
#include <vector>

#include "engine/error.h"
#include "engine/isa.h"
#include "engine/kernels/dense_kernels.h"
#include "engine/linear.h"
#include "engine/quantize.h"
#include "engine/thread_team.h"
#include "engine/weight_writer.h"
#include "models/config.h"
#include "models/file_copy.h"
#include "models/tensor_plan.h"
#include "models/token_cost.h"

namespace terrace {
namespace {

constexpr std::size_t kChunksPerThread = 4;

RoundingError rounding_error(std::span<const float> values, const float* stored) noexcept {
  RoundingError error;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double v = values[i];
    const double difference = stored[i] - v;
    error.squares += v * v;
    error.squared_errors += difference * difference;
    error.largest = std::max(error.largest, static_cast<float>(std::abs(difference)));
  }
  return error;
}

class Quantizer {
 public:
  Quantizer(const WeightFile& in, const std::string& path, const QuantizeOptions& options)
      : in_(in),
        path_(path),
        options_(options),
        kernels_(dense_kernels(best_isa())),
        plan_(plan_by_name(in)),
        team_(options.n_threads),
        writer_(path, specs(), copied_metadata(in)) {}

  std::vector<TensorChange> run() && {
    for (const TensorInfo& tensor : in_.tensors()) {
      if (is_scale(tensor.name)) continue;  // goes with its weight
      const auto dtype = new_dtype(tensor);
      RoundingError error;
      if (dtype) {
        error = convert(tensor, *dtype);
      } else {
        copy(tensor);
        if (const TensorInfo* scale = in_.find(tensor.name + std::string(kScaleSuffix));
            is_scale_of(tensor, scale)) {
          copy(*scale);
        }
      }
      if (tensor.name != kTokenizerData) record(tensor, dtype, error);
    }
    writer_.commit();
    return std::move(changes_);
  }

 private:
  using Plan = std::map<std::string, PlannedTensor, std::less<>>;

  static Plan plan_by_name(const WeightFile& in) {
    const std::string* config = in.metadata("config");
    TERRACE_CHECK(config != nullptr, kBadFile, in.label() + ": there is no configuration in it");
    Plan plan;
    for (PlannedTensor& tensor : tensor_plan(parse_config(*config))) {
      std::string name = tensor.name;
      plan.emplace(std::move(name), std::move(tensor));
    }
    add_biases(in, plan);
    return plan;
  }

  /// Biases of maps that the plan does without, as it does where norms are RMSNorm; layers add those that a
  /// file has.
  static void add_biases(const WeightFile& in, Plan& plan) {
    constexpr std::string_view kBias = ".bias";
    for (const TensorInfo& tensor : in.tensors()) {
      if (!tensor.name.ends_with(kBias) || plan.contains(tensor.name)) continue;
      const auto map = plan.find(tensor.name.substr(0, tensor.name.size() - kBias.size()) + ".weight");
      if (map == plan.end()) continue;
      PlannedTensor bias = map->second;
      bias.name = tensor.name;
      bias.shape.pop_back();
      bias.is_weight = false;
      if (tensor.type == StoredType::kF32 && tensor.shape == bias.shape) plan.emplace(tensor.name, bias);
    }
  }

  /// Whether `scale` holds the scales of the quantised weight `tensor`, and not a norm's.
  static bool is_scale_of(const TensorInfo& tensor, const TensorInfo* scale) {
    const auto dtype = weight_dtype(tensor);
    return scale != nullptr && dtype && is_quantized(*dtype);
  }

  bool is_scale(const std::string& name) const {
    if (!name.ends_with(kScaleSuffix) || plan_.contains(name)) return false;
    const TensorInfo* weight = in_.find(std::string_view(name).substr(0, name.size() - kScaleSuffix.size()));
    return weight != nullptr && is_scale_of(*weight, in_.find(name));
  }

  /// The dtype that a tensor is to be converted to; nullopt where its bytes are copied.
  std::optional<DType> new_dtype(const TensorInfo& tensor) const {
    if (tensor.name == kTokenizerData) return std::nullopt;
    const auto planned = plan_.find(tensor.name);
    TERRACE_CHECK(
        planned != plan_.end(), kBadFile,
        in_.label() + ": tensor '" + tensor.name + "' is none of those that the configuration needs");
    if (!planned->second.is_weight) return std::nullopt;
    const std::vector<std::uint64_t> shape = weight_shape(tensor);
    TERRACE_CHECK(shape == planned->second.shape, kBadFile,
                  fmt::format("{}: tensor '{}' must have shape [{}], found [{}]", in_.label(), tensor.name,
                              fmt::join(planned->second.shape, ", "), fmt::join(shape, ", ")));
    const DType dtype = stored_dtype(planned->second, options_.dtype);
    return weight_dtype(tensor) != dtype ? std::optional(dtype) : std::nullopt;
  }

  std::vector<TensorSpec> specs() const {
    std::vector<TensorSpec> all;
    for (const TensorInfo& tensor : in_.tensors()) {
      if (is_scale(tensor.name)) continue;
      if (const auto dtype = new_dtype(tensor)) {
        auto stored = weight_specs(tensor.name, *dtype, weight_shape(tensor));
        std::move(stored.begin(), stored.end(), std::back_inserter(all));
        continue;
      }
      all.push_back({tensor.name, tensor.type, tensor.shape});
      const TensorInfo* scale = in_.find(tensor.name + std::string(kScaleSuffix));
      if (is_scale_of(tensor, scale)) all.push_back({scale->name, scale->type, scale->shape});
    }
    return all;
  }

  void copy(const TensorInfo& tensor) {
    copy_tensor(in_, tensor, writer_, [this](std::size_t bytes) { report(bytes); });
  }

  RoundingError convert(const TensorInfo& tensor, DType dtype) {
    RoundingError error;
    const WeightView rows = in_.weight(tensor.name);
    if (rows.scale != nullptr) {
      read_tensor(in_, in_.get(tensor.name + std::string(kScaleSuffix)), [](const auto&) {});
    }
    TensorCheck check(in_, tensor);
    const std::size_t rows_per_piece =
        std::max<std::size_t>(1, kPieceBytes / std::max<std::size_t>(1, row_bytes(DType::kF32, rows.cols)));
    for (std::size_t begin = 0; begin < rows.rows; begin += rows_per_piece) {
      const WeightView piece = rows.slice_rows(begin, std::min(rows_per_piece, rows.rows - begin));
      check.update({piece.row(0), piece.rows * row_bytes(piece.dtype, piece.cols)});
      TERRACE_CHECK(convert_rows(piece, dtype), kBadFile,
                    in_.label() + ": tensor '" + tensor.name + "' holds a value that is not finite");
      writer_.write(tensor.name, data_);
      if (!scale_.empty()) writer_.write(tensor.name + std::string(kScaleSuffix), scale_);
      // Row by row, in order: the sums do not depend on which thread took which rows.
      for (const RoundingError& row : row_errors_) error += row;
      report(piece.bytes());
    }
    check.finish();
    release_pages(in_, tensor);
    return error;
  }

  /// Fills data_, scale_ and row_errors_; false when a value is not finite.
  bool convert_rows(const WeightView& rows, DType dtype) {
    const std::size_t data_bytes = row_bytes(dtype, rows.cols);
    const std::size_t scale_bytes = row_scale_bytes(dtype, rows.cols);
    data_.resize(rows.rows * data_bytes);
    scale_.resize(rows.rows * scale_bytes);
    row_errors_.assign(rows.rows, {});
    const WeightView stored{
        data_.data(), scale_.empty() ? nullptr : scale_.data(), rows.rows, rows.cols, rows.cols, dtype};
    const auto n_chunks =
        static_cast<std::uint32_t>(std::min<std::size_t>(rows.rows, kChunksPerThread * team_.size()));
    f32_.resize(std::size_t{2} * n_chunks * rows.cols);
    std::atomic<bool> finite{true};
    const ThreadTeam::Region region(team_);
    team_.run(n_chunks, [&](std::uint32_t chunk) {
      const std::span<float> row(f32_.data() + std::size_t{2} * chunk * rows.cols, rows.cols);
      float* const read_back = row.data() + rows.cols;
      for (std::size_t r = rows.rows * chunk / n_chunks; r < rows.rows * (chunk + 1) / n_chunks; ++r) {
        widen_row(kernels_, rows, r, row.data());
        if (!std::all_of(row.begin(), row.end(), [](float w) { return std::isfinite(w); })) {
          finite = false;
          return;
        }
        store_row(dtype, row, data_.data() + r * data_bytes, scale_.data() + r * scale_bytes);
        widen_row(kernels_, stored, r, read_back);
        row_errors_[r] = rounding_error(row, read_back);
      }
    });
    return finite;
  }

  void record(const TensorInfo& tensor, std::optional<DType> new_dtype, const RoundingError& error) {
    const PlannedTensor& planned = plan_.find(tensor.name)->second;
    const DType from = weight_dtype(tensor).value_or(DType::kF32);
    const DType to = new_dtype.value_or(from);
    changes_.push_back({.name = tensor.name,
                        .kind = planned.kind,
                        .from = from,
                        .to = to,
                        .elements = planned.elements(),
                        .bytes_before = stored_bytes(planned, from),
                        .bytes_after = stored_bytes(planned, to),
                        .error = error});
  }

  void report(std::uint64_t bytes) {
    done_ += bytes;
    TERRACE_CHECK(!options_.progress || options_.progress(done_, in_.file_bytes()), kCancelled,
                  "writing '" + path_ + "' was stopped");
  }

  const WeightFile& in_;
  const std::string& path_;
  const QuantizeOptions& options_;
  const DenseKernels& kernels_;
  Plan plan_;
  ThreadTeam team_;
  WeightWriter writer_;
  std::vector<float> f32_;
  std::vector<std::byte> data_;
  std::vector<std::byte> scale_;
  std::vector<RoundingError> row_errors_;
  std::vector<TensorChange> changes_;
  std::uint64_t done_ = 0;
};

}  // namespace

RoundingError& RoundingError::operator+=(const RoundingError& other) noexcept {
  squares += other.squares;
  squared_errors += other.squared_errors;
  largest = std::max(largest, other.largest);
  return *this;
}

double RoundingError::relative_rms() const noexcept {
  return squares > 0 ? std::sqrt(squared_errors / squares) : 0;
}

std::vector<TensorChange> quantize_model(const WeightFile& in, const std::string& path,
                                         const QuantizeOptions& options) {
  return Quantizer(in, path, options).run();
}

}  // namespace terrace
