// SPDX-License-Identifier: Apache-2.0
#include "models/init.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/thread_team.h"
#include "engine/weight_writer.h"
#include "models/random_weights.h"
#include "models/tensor_plan.h"
#include "models/token_cost.h"
#include "models/tokenizer.h"

namespace terrace {
namespace {

/// Bytes made in one go: a few milliseconds of work, so that the threads are worth waking and progress is
/// smooth.
constexpr std::uint64_t kPieceBytes = 8U << 20;
constexpr std::uint64_t kChunksPerThread = 4;

class Initializer {
 public:
  Initializer(const ModelConfig& config, const std::string& path, const InitOptions& options)
      : options_(options),
        path_(path),
        plan_(tensor_plan(config)),
        team_(options.n_threads),
        writer_(path, specs(), metadata(config)) {}

  void run() && {
    report(0);
    for (const PlannedTensor& tensor : plan_) fill(tensor);
    if (!options_.tokenizer_data.empty()) writer_.write(kTokenizerData, options_.tokenizer_data);
    writer_.commit();
  }

 private:
  std::vector<TensorSpec> specs() const {
    std::vector<TensorSpec> all;
    for (const PlannedTensor& tensor : plan_) {
      auto stored = weight_specs(tensor.name, stored_dtype(tensor, options_.dtype), tensor.shape);
      std::move(stored.begin(), stored.end(), std::back_inserter(all));
    }
    if (!options_.tokenizer_data.empty()) {
      all.push_back({std::string(kTokenizerData), StoredType::kU8, {options_.tokenizer_data.size()}});
    }
    return all;
  }

  std::map<std::string, std::string> metadata(const ModelConfig& config) const {
    std::map<std::string, std::string> metadata{
        {"config", config_to_json(config)},
        {"tokenizer", options_.tokenizer},
        {"source", "random weights, seed " + std::to_string(options_.seed)}};
    if (!options_.name.empty()) metadata["name"] = options_.name;
    return metadata;
  }

  void fill(const PlannedTensor& tensor) {
    const DType dtype = stored_dtype(tensor, options_.dtype);
    const RandomWeights random(options_.seed, tensor.name, dtype, tensor.columns(), tensor.initial);
    const std::uint64_t n_rows = tensor.elements() / tensor.columns();
    const std::uint64_t rows_per_piece = std::max<std::uint64_t>(1, kPieceBytes / random.row_bytes());
    for (std::uint64_t begin = 0; begin < n_rows; begin += rows_per_piece) {
      const std::uint64_t count = std::min(rows_per_piece, n_rows - begin);
      fill_rows(random, begin, count);
      writer_.write(tensor.name, data_);
      if (!scale_.empty()) writer_.write(tensor.name + std::string(kScaleSuffix), scale_);
      report(data_.size() + scale_.size());
    }
  }

  void fill_rows(const RandomWeights& random, std::uint64_t begin, std::uint64_t count) {
    data_.resize(count * random.row_bytes());
    scale_.resize(count * random.scale_bytes());
    const auto n_chunks =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(count, kChunksPerThread * team_.size()));
    const ThreadTeam::Region region(team_);
    team_.run(n_chunks, [&](std::uint32_t chunk) {
      for (std::uint64_t row = count * chunk / n_chunks; row < count * (chunk + 1) / n_chunks; ++row) {
        random.fill_row(begin + row, data_.data() + row * random.row_bytes(),
                        scale_.data() + row * random.scale_bytes());
      }
    });
  }

  void report(std::uint64_t bytes) {
    done_ += bytes;
    TERRACE_CHECK(!options_.progress || options_.progress(done_, writer_.tensor_bytes()), kCancelled,
                  "writing '" + path_ + "' was stopped");
  }

  const InitOptions& options_;
  const std::string& path_;
  std::vector<PlannedTensor> plan_;
  ThreadTeam team_;
  WeightWriter writer_;
  std::vector<std::byte> data_;
  std::vector<std::byte> scale_;
  std::uint64_t done_ = 0;
};

}  // namespace

void init_model(const ModelConfig& config, const std::string& path, const InitOptions& options) {
  const TokenId n_ids = make_tokenizer(options.tokenizer, options.tokenizer_data)->vocab_size();
  TERRACE_CHECK(std::cmp_less_equal(n_ids, config.vocab_size), kBadArgument,
                "the tokenizer has " + std::to_string(n_ids) + " ids, more than the vocabulary of " +
                    std::to_string(config.vocab_size));
  Initializer(config, path, options).run();
}

}  // namespace terrace
