// SPDX-License-Identifier: Apache-2.0
#include "engine/feed_forward.h"

#include <fmt/format.h>

#include "engine/error.h"

namespace terrace {
namespace {

/// The first `n` outputs of a map.
Linear first_rows(const Linear& map, std::size_t n) noexcept {
  return {map.kernels(), map.weight().slice_rows(0, n), map.bias()};
}

}  // namespace

FeedForward::FeedForward(const Linear& w1, const Linear& w2, const Linear& gate, Activation activation)
    : w1_(w1), w2_(w2), gate_(gate), activation_(activation) {
  TERRACE_CHECK(w1 && w2 && w1.d_in() == w2.d_out() && w1.d_out() == w2.d_in(), kBadArgument,
                fmt::format("feed-forward: w1 [{}, {}] and w2 [{}, {}] do not fit", w1.d_out(), w1.d_in(),
                            w2.d_out(), w2.d_in()));
  TERRACE_CHECK(!gate || (gate.d_in() == w1.d_in() && gate.d_out() == w1.d_out()), kBadArgument,
                fmt::format("feed-forward: gate [{}, {}] differs from w1 [{}, {}]", gate.d_out(), gate.d_in(),
                            w1.d_out(), w1.d_in()));
}

std::size_t FeedForward::bytes_per_token(std::size_t width) const noexcept {
  return first_rows(w1_, width).weight().bytes() + w2_.weight().prefix_columns(width).bytes() +
         (gate_ ? first_rows(gate_, width).weight().bytes() : 0);
}

void FeedForward::forward(Exec& exec, ConstRows x, Rows y, std::size_t width) const {
  TERRACE_DCHECK(width > 0 && width <= d_ff());
  const Workspace::Scope scope(exec.ws);
  const Linear up = first_rows(w1_, width);
  const Linear down(w2_.kernels(), w2_.weight().prefix_columns(width), w2_.bias());
  const DType dtype = up.weight().dtype;
  const PreparedRows prepared(exec, up.kernels(), dtype, x);
  const Rows h{exec.ws.take<float>(x.n * width), x.n, width, width};

  // Chunks start at whole vectors, so an element meets the same code of an elementwise kernel in every split.
  constexpr std::size_t kAlign = 64;
  const std::size_t work = dot_work(up.weight(), prepared);
  if (!gate_) {
    exec.for_range(width, kAlign, work, [&](std::size_t begin, std::size_t end) {
      up.forward_range(prepared, begin, end, h);
      for (std::size_t t = 0; t < x.n; ++t) apply(up.kernels(), activation_, h.row(t) + begin, end - begin);
    });
  } else {
    const Linear gate = first_rows(gate_, width);
    const PreparedRows prepared_gate = same_preparation(gate.weight().dtype, dtype)
                                           ? prepared
                                           : PreparedRows(exec, gate.kernels(), gate.weight().dtype, x);
    const Rows g{exec.ws.take<float>(x.n * width), x.n, width, width};
    const std::size_t both = work + dot_work(gate.weight(), prepared_gate);
    exec.for_range(width, kAlign, both, [&](std::size_t begin, std::size_t end) {
      up.forward_range(prepared, begin, end, h);
      gate.forward_range(prepared_gate, begin, end, g);
      for (std::size_t t = 0; t < x.n; ++t) {
        apply(up.kernels(), activation_, g.row(t) + begin, end - begin);
        up.kernels().multiply(h.row(t) + begin, g.row(t) + begin, end - begin);
      }
    });
  }
  down.forward(exec, h, y);
}

}  // namespace terrace
