// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "models/config.h"
#include "models/tensor_plan.h"

namespace terrace {

// Initial values: a weight row of n inputs has std gain / sqrt(n), so that inputs of size 1 give outputs of
// size gain.
inline constexpr float kReluGain = 1.41421356F;  ///< a rectifier halves the mean square
inline constexpr float kBiasStd = 0.02F;         ///< not zero: a forgotten bias must show
inline constexpr float kUnitStd = 1.0F;

float std_of_row(float gain, std::uint64_t n_inputs) noexcept;

/// Tensors in the order of a file, one by one and as the linear maps that they make up: name, shape, initial
/// values, and what a token reads.
class PlanBuilder {
 public:
  using Shape = std::vector<std::uint64_t>;
  enum class Bias { kNever, kUnlessRms, kAlways };

  /// What holds for the tensors that are added next.
  struct Context {
    bool per_token = false;              ///< decoding a token reads them
    double share = 1;                    ///< of the tokens, that read them
    std::optional<std::uint32_t> block;  ///< as in PlannedTensor
    bool by_width = false;               ///< too
  };

  explicit PlanBuilder(const ModelConfig& config);

  const ModelConfig& config() const noexcept { return config_; }
  bool is_rms() const noexcept { return config_.norm.kind == NormConfig::Kind::kRmsNorm; }
  Context& context() noexcept { return context_; }
  std::vector<PlannedTensor> take() && { return std::move(plan_); }

  // --- single tensors
  void add(std::string name, Shape shape, LayerKind kind, bool is_weight, std::uint64_t touched,
           std::uint64_t uses, InitialValue initial);
  /// A weight of which every element is read and used `uses` times.
  void weight(const std::string& name, Shape shape, LayerKind kind, float gain, std::uint64_t uses = 1);
  void f32(const std::string& name, Shape shape, LayerKind kind, InitialValue initial,
           std::uint64_t uses = 0);
  /// Gates of a multiplicative layer, of size 1.
  void gate(const std::string& name, std::uint64_t s, std::uint64_t in, LayerKind kind);
  void bias(const std::string& name, Shape shape, LayerKind kind);
  /// A token table, of which one row is read.
  void table(const std::string& name, std::uint64_t rows, std::uint64_t d);
  void norm(const std::string& name, std::uint64_t d);

  // --- linear maps
  void dense(const std::string& name, std::uint64_t in, std::uint64_t out, LayerKind kind, float gain,
             Bias with_bias = Bias::kUnlessRms);
  void mult(const std::string& name, std::uint64_t in, std::uint64_t out, std::uint64_t s, LayerKind kind,
            float gain);
  void conv(const std::string& name, std::uint64_t in, std::uint64_t out, std::uint64_t s,
            std::uint64_t modules_seen, std::uint64_t steps, LayerKind kind, float gain);
  void projection(const std::string& name, const ProjectionConfig& p, std::uint64_t in, std::uint64_t out,
                  LayerKind kind, float gain);

 private:
  const ModelConfig& config_;
  Context context_;
  std::vector<PlannedTensor> plan_;
};

}  // namespace terrace
