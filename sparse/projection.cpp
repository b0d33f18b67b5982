// SPDX-License-Identifier: Apache-2.0
#include "sparse/projection.h"

#include <fmt/format.h>

#include <span>
#include <type_traits>

#include "engine/error.h"

namespace terrace {

LowRankDense::LowRankDense(const Linear& down, const Linear& up) : down_(down), up_(up) {
  TERRACE_CHECK(down.d_out() == up.d_in(), kBadArgument,
                fmt::format("low-rank layer: down gives {} channels, up reads {}", down.d_out(), up.d_in()));
}

void LowRankDense::forward(Exec& exec, ConstRows x, Rows y) const {
  const Workspace::Scope scope(exec.ws);
  const Rows low{exec.ws.take<float>(x.n * down_.d_out()), x.n, down_.d_out(), down_.d_out()};
  down_.forward(exec, x, low);
  up_.forward(exec, low, y);
}

Projection::Projection(Map map) : map_(std::move(map)) {
  const auto* const conv = std::get_if<LocallyConvDense>(&map_);
  TERRACE_CHECK(!conv || conv->n_steps() == 1, kBadArgument,
                fmt::format("projection: a convolution over {} time steps has state; expected 1 step",
                            conv ? conv->n_steps() : 0));
}

std::size_t Projection::d_in() const noexcept {
  return std::visit([](const auto& map) { return map.d_in(); }, map_);
}

std::size_t Projection::d_out() const noexcept {
  return std::visit([](const auto& map) { return map.d_out(); }, map_);
}

std::size_t Projection::bytes_per_token() const noexcept {
  return std::visit(
      [](const auto& map) {
        if constexpr (std::is_same_v<std::decay_t<decltype(map)>, Linear>) {
          return map.weight().bytes();
        } else {
          return map.bytes_per_token();
        }
      },
      map_);
}

void Projection::forward(Exec& exec, ConstRows x, Rows y) const {
  std::visit(
      [&](const auto& map) {
        if constexpr (std::is_same_v<std::decay_t<decltype(map)>, LocallyConvDense>) {
          map.forward(exec, x, std::span<float>{}, y);
        } else {
          map.forward(exec, x, y);
        }
      },
      map_);
}

}  // namespace terrace
