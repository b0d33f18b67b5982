// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>

#include "engine/error.h"
#include "models/config.h"

// What the enums of ModelConfig are called in a model file (docs/model-file.md, "Configuration").

namespace terrace {

/// Enum values and their names in the file; one table serves both directions.
template <class Enum>
struct EnumName {
  Enum value;
  const char* name;
};

inline constexpr std::array kFamilies = {EnumName<Family>{Family::kTransformerLm, "transformer_lm"},
                                         EnumName<Family>{Family::kTerraformer, "terraformer"},
                                         EnumName<Family>{Family::kReformerLm, "reformer_lm"},
                                         EnumName<Family>{Family::kTransformer, "transformer"}};
using NormKind = NormConfig::Kind;
inline constexpr std::array kNorms = {EnumName<NormKind>{NormKind::kLayerNorm, "layer_norm"},
                                      EnumName<NormKind>{NormKind::kRmsNorm, "rms_norm"}};
using PositionKind = PositionConfig::Kind;
inline constexpr std::array kPositions = {EnumName<PositionKind>{PositionKind::kNone, "none"},
                                          EnumName<PositionKind>{PositionKind::kLearned, "learned"},
                                          EnumName<PositionKind>{PositionKind::kLowRank, "low_rank"},
                                          EnumName<PositionKind>{PositionKind::kSinCos, "sin_cos"},
                                          EnumName<PositionKind>{PositionKind::kFixedBase, "fixed_base"},
                                          EnumName<PositionKind>{PositionKind::kInfinite, "infinite"},
                                          EnumName<PositionKind>{PositionKind::kAxial, "axial"},
                                          EnumName<PositionKind>{PositionKind::kTimeBin, "time_bin"}};
using ProjectionKind = ProjectionConfig::Kind;
inline constexpr std::array kProjections = {
    EnumName<ProjectionKind>{ProjectionKind::kDense, "dense"},
    EnumName<ProjectionKind>{ProjectionKind::kMult, "mult"},
    EnumName<ProjectionKind>{ProjectionKind::kMultModular, "mult_modular"},
    EnumName<ProjectionKind>{ProjectionKind::kConv, "conv"},
    EnumName<ProjectionKind>{ProjectionKind::kLocal, "local"},
    EnumName<ProjectionKind>{ProjectionKind::kLowRank, "low_rank"}};
using AttentionKind = AttentionConfig::Kind;
inline constexpr std::array kAttentions = {
    EnumName<AttentionKind>{AttentionKind::kDotProduct, "dot_product"},
    EnumName<AttentionKind>{AttentionKind::kMultiplicativeConv, "multiplicative_conv"},
    EnumName<AttentionKind>{AttentionKind::kSelf, "self"},
    EnumName<AttentionKind>{AttentionKind::kLsh, "lsh"},
    EnumName<AttentionKind>{AttentionKind::kPureLsh, "pure_lsh"},
    EnumName<AttentionKind>{AttentionKind::kMixedLsh, "mixed_lsh"},
    EnumName<AttentionKind>{AttentionKind::kFavor, "favor"}};
inline constexpr std::array kRotaryScalings = {
    EnumName<RotaryScaling::Kind>{RotaryScaling::Kind::kLinear, "linear"},
    EnumName<RotaryScaling::Kind>{RotaryScaling::Kind::kLlama3, "llama3"}};
using VConcat = AttentionConfig::VConcat;
inline constexpr std::array kVConcats = {EnumName<VConcat>{VConcat::kNone, "none"},
                                         EnumName<VConcat>{VConcat::kOriginal, "original"},
                                         EnumName<VConcat>{VConcat::kFixed, "fixed"}};
using AttentionOutput = AttentionConfig::Output;
inline constexpr std::array kOutputs = {EnumName<AttentionOutput>{AttentionOutput::kNone, "none"},
                                        EnumName<AttentionOutput>{AttentionOutput::kMult, "mult"},
                                        EnumName<AttentionOutput>{AttentionOutput::kConv, "conv"},
                                        EnumName<AttentionOutput>{AttentionOutput::kMultConv, "multconv"}};
inline constexpr std::array kActivations = {EnumName<Activation>{Activation::kRelu, "relu"},
                                            EnumName<Activation>{Activation::kGelu, "gelu"},
                                            EnumName<Activation>{Activation::kFastGelu, "fast_gelu"},
                                            EnumName<Activation>{Activation::kSilu, "silu"}};
using FeedForwardKind = FeedForwardConfig::Kind;
inline constexpr std::array kFeedForwards = {EnumName<FeedForwardKind>{FeedForwardKind::kDense, "dense"},
                                             EnumName<FeedForwardKind>{FeedForwardKind::kSparse, "sparse"},
                                             EnumName<FeedForwardKind>{FeedForwardKind::kBlock, "block"},
                                             EnumName<FeedForwardKind>{FeedForwardKind::kSwitch, "switch"},
                                             EnumName<FeedForwardKind>{FeedForwardKind::kExperts, "experts"}};

template <class Enum, std::size_t N>
const char* name_of(const std::array<EnumName<Enum>, N>& names, Enum value) {
  for (const auto& entry : names) {
    if (entry.value == value) return entry.name;
  }
  throw Error(ErrorCode::kInternal, "configuration holds an enum value without a name");
}

}  // namespace terrace
