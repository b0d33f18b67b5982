// SPDX-License-Identifier: Apache-2.0
#include "sparse/depth_router.h"

#include <algorithm>

namespace terrace {

std::size_t DepthRouter::choose(Exec& exec, ConstRows x, std::uint32_t* chosen, float* factor) const {
  const Workspace::Scope scope(exec.ws);
  const auto column = [&] { return Rows{exec.ws.take<float>(x.n), x.n, 1, 1}; };
  const Rows r = column();
  router_.forward(exec, x, r);
  Rows s = r;
  if (in_) {
    const std::size_t width = in_.d_out();
    const Rows h{exec.ws.take<float>(x.n * width), x.n, width, width};
    in_.forward(exec, x, h);
    // Keeps a NaN, which then reaches s and does not run.
    std::transform(h.data, h.data + x.n * width, h.data, [](float v) { return v < 0 ? 0 : v; });
    s = column();
    out_.forward(exec, h, s);
  }
  std::size_t n = 0;
  for (std::size_t t = 0; t < x.n; ++t) {
    if (!(*s.row(t) > 0)) continue;
    chosen[n] = static_cast<std::uint32_t>(t);
    factor[n++] = *r.row(t);
  }
  return n;
}

}  // namespace terrace
