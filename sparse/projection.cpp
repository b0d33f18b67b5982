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

Largest LowRankDense::largest(Exec& exec, ConstRows x) const {
  const Workspace::Scope scope(exec.ws);
  const Rows low{exec.ws.take<float>(x.n * down_.d_out()), x.n, down_.d_out(), down_.d_out()};
  down_.forward(exec, x, low);
  return up_.largest(exec, low);
}

Projection::Projection(const Map& map) : map_(map) {
  const auto* const conv = std::get_if<LocallyConvDense>(&map_);
  TERRACE_CHECK(!conv || conv->n_steps() == 1, kBadArgument,
                fmt::format("projection: a convolution over {} time steps has state; expected 1 step",
                            conv ? conv->n_steps() : 0));
  std::visit(
      [this](const auto& chosen) {
        d_in_ = chosen.d_in();
        d_out_ = chosen.d_out();
        if constexpr (std::is_same_v<std::decay_t<decltype(chosen)>, Linear>) {
          bytes_per_token_ = chosen.weight().bytes();
        } else {
          bytes_per_token_ = chosen.bytes_per_token();
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

Largest Projection::largest(Exec& exec, ConstRows x) const {
  return std::visit(
      [&](const auto& map) {
        if constexpr (requires { map.largest(exec, x); }) {
          return map.largest(exec, x);
        } else {
          const Workspace::Scope scope(exec.ws);
          const Rows y{exec.ws.take<float>(d_out_), 1, d_out_, d_out_};
          forward(exec, x, y);
          Largest largest;
          largest.take(y.data, d_out_, 0);
          return largest;
        }
      },
      map_);
}

}  // namespace terrace
