// SPDX-License-Identifier: Apache-2.0
#include "models/stack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "models/whole_rows.h"

namespace terrace {
namespace {

/// Both streams become [x1 | x2], in place.
void concatenate_streams(const Exec& exec, Streams& streams) noexcept {
  const std::size_t d = streams.x1.width;
  exec.for_range(streams.x1.n, 1, 16 * d, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) {
      std::memcpy(streams.x1.row(t) + d, streams.x2.row(t), d * sizeof(float));
      std::memcpy(streams.x2.row(t), streams.x1.row(t), 2 * d * sizeof(float));
    }
  });
  streams.x1.width = streams.x2.width = 2 * d;
}

}  // namespace

void mean_of_streams(const Exec& exec, const Streams& streams, Rows x) noexcept {
  exec.for_range(x.n, 1, 8 * x.width, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) {
      const float* a = streams.x1.row(t);
      const float* b = streams.x2.row(t);
      float* y = x.row(t);
      for (std::size_t c = 0; c < x.width; ++c) y[c] = (a[c] + b[c]) / 2;
    }
  });
}

Stack::Stack(const LayerBuilder& build, const std::string& name, const StackConfig& config, bool causal) {
  for (const StackStep& step : stack_steps(build.config, config)) {
    const std::string block = fmt::format("{}.blocks.{}", name, step.block);
    max_width_ = std::max<std::size_t>(max_width_, step.d_model);
    switch (step.kind) {
      case StackStep::Kind::kBlock:
        steps_.push_back({step.kind, blocks_.size()});
        blocks_.emplace_back(build, block, config, step.block, step.d_model, step.d_ff, causal);
        break;
      case StackStep::Kind::kConcatenate:
        steps_.push_back({step.kind, 0});
        max_width_ = std::max<std::size_t>(max_width_, 2 * std::size_t{step.d_model});
        break;
      case StackStep::Kind::kForget:
        if (!config.forget_dense) break;  // a forgetting point without a dense layer changes nothing
        steps_.push_back({step.kind, forget_.size()});
        forget_.push_back(build.linear(block + ".forget", step.d_model, step.d_model));
        break;
    }
  }
}

bool Stack::steps_equal_evaluation() const noexcept {
  return std::all_of(blocks_.begin(), blocks_.end(),
                     [](const Block& b) { return b.steps_equal_evaluation(); });
}

std::size_t Stack::length_multiple() const noexcept {
  std::size_t multiple = 1;
  for (const Block& block : blocks_) multiple = std::lcm(multiple, block.length_multiple());
  return multiple;
}

std::size_t Stack::encode_passes() const noexcept {
  std::size_t passes = forget_.size();
  for (const Block& block : blocks_) passes += block.encode_passes();
  return passes;
}

void Stack::forget(Exec& exec, const Linear& dense, Streams& streams) {
  const Workspace::Scope scope(exec.ws);
  const Rows mean = take_rows(exec, streams.x1.n, streams.x1.width);
  mean_of_streams(exec, streams, mean);
  dense.forward(exec, mean, streams.x1);
  copy_rows(streams.x1, streams.x2);
}

void Stack::forward(StepContext& context, Streams& streams, std::span<const std::uint32_t> widths,
                    std::span<const KvCache> cross) const {
  for (const Step& step : steps_) {
    switch (step.kind) {
      case StackStep::Kind::kBlock:
        blocks_[step.index].forward(context, streams, widths[step.index],
                                    cross.empty() ? nullptr : &cross[step.index]);
        if (context.tick) (*context.tick)(streams.x1.n);
        break;
      case StackStep::Kind::kConcatenate:
        concatenate_streams(context.exec, streams);
        break;
      case StackStep::Kind::kForget:
        forget(context.exec, forget_[step.index], streams);
        break;
    }
  }
}

void Stack::evaluate(EncodeContext& context, Streams& streams, StackState& state,
                     std::span<const KvCache> cross) const {
  for (const Step& step : steps_) {
    switch (step.kind) {
      case StackStep::Kind::kBlock:
        blocks_[step.index].evaluate(context, streams, state, cross.empty() ? nullptr : &cross[step.index]);
        break;
      case StackStep::Kind::kConcatenate:
        concatenate_streams(context.exec, streams);
        break;
      case StackStep::Kind::kForget:
        context.for_blocks(streams.x1.n, [&](std::size_t begin, std::size_t count) {
          Streams part{streams.x1.slice(begin, count), streams.x2.slice(begin, count)};
          forget(context.exec, forget_[step.index], part);
        });
        break;
    }
  }
}

}  // namespace terrace
