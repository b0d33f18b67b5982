// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "models/plan_builder.h"

namespace terrace {

/// The tensors of one layer of width d. Its last map has `gain`, so that layers which add to the residual
/// stream add as much as its embedding does.
void plan_attention(PlanBuilder& plan, const std::string& name, const AttentionConfig& a, std::uint64_t d,
                    float gain);
void plan_cross_attention(PlanBuilder& plan, const std::string& name, const CrossAttentionConfig& c,
                          std::uint64_t d, float gain);
/// With its recurrent units, if there are any.
void plan_feed_forward(PlanBuilder& plan, const std::string& name, const FeedForwardConfig& f,
                       std::uint64_t d, std::uint64_t d_ff, float gain);

}  // namespace terrace
