// SPDX-License-Identifier: Apache-2.0
#include "models/position_builder.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/error.h"

namespace terrace {

std::size_t position_limit(const ModelConfig& config, const StackConfig& stack) {
  constexpr std::size_t kMaxPositions = std::size_t{1} << 28;  // as in validate()
  using Kind = PositionConfig::Kind;
  const bool rotary = std::any_of(stack.attention.begin(), stack.attention.end(),
                                  [](const AttentionConfig& a) { return a.rotary.has_value(); });
  if (rotary) return config.max_context;
  switch (stack.position.kind) {
    case Kind::kLearned:
    case Kind::kLowRank:
      return stack.position.max_len;
    case Kind::kAxial: {
      std::size_t n = 1;
      for (const std::uint32_t size : stack.position.shape) n *= size;
      return n;
    }
    case Kind::kInfinite:
      return config.max_context;
    default:
      return kMaxPositions;
  }
}

PositionEncoding build_position(const LayerBuilder& build, const std::string& stack,
                                const PositionConfig& config, std::size_t d) {
  using Kind = PositionConfig::Kind;
  const std::string name = stack + ".position";
  WeightBinder& binder = build.binder;
  const std::size_t max_len = config.max_len;
  switch (config.kind) {
    case Kind::kNone:
      return {};
    case Kind::kLearned:
      return PositionEncoding(LearnedPosition(binder.f32(name + ".table", {max_len, d}), max_len, d));
    case Kind::kLowRank: {
      const float* table = binder.f32(name + ".table", {max_len, config.rank});
      const Linear proj(build.kernels, binder.weight(name + ".proj", {d, config.rank}), nullptr);
      return PositionEncoding(LowRankPosition(table, max_len, proj));
    }
    case Kind::kSinCos:
      return PositionEncoding(SinCosPosition(d));
    case Kind::kFixedBase: {
      using Fixed = FixedBasePosition;
      const float* digits =
          binder.f32(name + ".digits", {Fixed::kBases.size(), Fixed::kDigits, d / Fixed::kDigits});
      return PositionEncoding(Fixed(digits, binder.f32(name + ".start", {d}), d));
    }
    case Kind::kInfinite:
      return PositionEncoding(
          InfinitePosition(build.linear(name, d, d), build.config.max_context, config.drift));
    case Kind::kAxial: {
      std::vector<AxialPosition::Axis> axes;
      for (std::size_t a = 0; a < config.shape.size(); ++a) {
        const std::size_t size = config.shape[a];
        const std::size_t width = config.dims[a];
        axes.push_back({binder.f32(fmt::format("{}.axis.{}", name, a), {size, width}), size, width});
      }
      return PositionEncoding(AxialPosition(std::move(axes)));
    }
    case Kind::kTimeBin:
      return PositionEncoding(TimeBinPosition(config.bin_length));
  }
  throw Error(ErrorCode::kInternal, "positional encoding of unknown kind");
}

}  // namespace terrace
