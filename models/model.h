// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "engine/isa.h"
#include "engine/weight_file.h"
#include "models/config.h"
#include "models/tokenizer.h"

namespace terrace {

class Network;

/// A loaded model: configuration, tokenizer and weights. Immutable, so any number of sessions and threads
/// share one. The weights are views of the mapped file; loading reads the header and touches nothing else,
/// whatever the size.
class Model {
 public:
  struct LoadOptions {
    Isa isa = isa_from_environment();  ///< which kernels its layers use
    /// Whether the rows of sparse layers and embeddings are fetched from the disk one by one as tokens need
    /// them; without a value, if the file is larger than the free memory. Changes no bit of any result.
    std::optional<bool> rows_on_demand = std::nullopt;
  };

  /// Throws Error{kIo, kBadFile, kBadConfig, kUnsupported, kOutOfMemory}; the message names file and tensor.
  static std::shared_ptr<const Model> load(const std::string& path, const LoadOptions& options);
  static std::shared_ptr<const Model> load(const std::string& path) { return load(path, LoadOptions{}); }

  /// As load, from an opened file.
  static std::shared_ptr<const Model> from_file(WeightFile file, const LoadOptions& options);

  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelConfig& config() const noexcept { return config_; }
  const Tokenizer& tokenizer() const noexcept { return *tokenizer_; }
  const WeightFile& file() const noexcept { return file_; }
  Isa isa() const noexcept { return isa_; }
  /// Whether rows are fetched from the disk on demand (LoadOptions).
  bool rows_on_demand() const noexcept { return rows_on_demand_; }
  bool has_encoder() const noexcept { return config_.encoder.has_value(); }

  /// Differs between models that must not load each other's sessions: a hash of configuration and weight
  /// checksums.
  std::uint64_t fingerprint() const noexcept { return fingerprint_; }

  /// The layers; for sessions.
  const Network& network() const noexcept { return *network_; }

 private:
  Model(WeightFile file, const LoadOptions& options);

  WeightFile file_;
  Isa isa_;
  bool rows_on_demand_;
  ModelConfig config_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Network> network_;
  std::uint64_t fingerprint_ = 0;
};

}  // namespace terrace
