// SPDX-License-Identifier: Apache-2.0
#include "engine/sru.h"

#include <fmt/format.h>

#include <utility>

#include "engine/error.h"

namespace terrace {
namespace {

constexpr float kSqrt3 = 1.7320508F;

}  // namespace

SruCell::SruCell(const Linear& gates) : gates_(gates) {
  TERRACE_CHECK(gates && gates.d_out() == 3 * gates.d_in(), kBadArgument,
                fmt::format("SRU: expected gates [3 * s, s], found [{}, {}]", gates.d_out(), gates.d_in()));
}

void SruCell::forward(Exec& exec, ConstRows x, const RecurrentSlot& c, Rows h) const {
  const Workspace::Scope scope(exec.ws);
  const std::size_t s = width();
  const Rows gates{exec.ws.take<float>(x.n * 3 * s), x.n, 3 * s, 3 * s};
  gates_.forward(exec, x, gates);
  const std::span<float> now = c.now();
  for (std::size_t t = 0; t < x.n; ++t) {
    gates_.kernels().sigmoid(gates.row(t), 2 * s);
    const float* const r = gates.row(t);
    const float* const f = r + s;
    const float* const u = f + s;
    const float* const in = x.row(t);
    float* const out = h.row(t);
    for (std::size_t i = 0; i < s; ++i) {
      now[i] = f[i] * now[i] + u[i] * (1.0F - f[i]);
      out[i] = now[i] * r[i] + in[i] * (1.0F - r[i]) * kSqrt3;
    }
    if (t + 1 < x.n) c.leave(t);
  }
}

SruBranch::SruBranch(const Norm& norm, const Linear& in, std::vector<SruCell> cells, const Linear& out,
                     RecurrentLayout& layout)
    : norm_(norm), in_(in), cells_(std::move(cells)), out_(out) {
  const std::size_t s = in.d_out();
  bool fits = in && out && norm.width() == in.d_in() && out.d_in() == s && out.d_out() == in.d_in() &&
              !cells_.empty();
  for (const SruCell& cell : cells_) fits = fits && cell.width() == s;
  TERRACE_CHECK(fits, kBadArgument,
                fmt::format("SRU branch: norm {}, in [{}, {}], {} cells and out [{}, {}] do not fit",
                            norm.width(), in.d_out(), in.d_in(), cells_.size(), out.d_out(), out.d_in()));
  state_ = layout.add(cells_.size() * s);
}

std::size_t SruBranch::bytes_per_token() const noexcept {
  std::size_t bytes = in_.weight().bytes() + out_.weight().bytes();
  for (const SruCell& cell : cells_) bytes += cell.bytes_per_token();
  return bytes;
}

void SruBranch::forward(Exec& exec, ConstRows x, const RecurrentBlock& recurrent, Rows y) const {
  const ProfileZone zone(exec.profile, Zone::kSru);
  const Workspace::Scope scope(exec.ws);
  const std::size_t s = in_.d_out();
  const Rows narrow{exec.ws.take<float>(x.n * s), x.n, s, s};
  norm_.forward(exec, x, y);
  in_.forward(exec, y, narrow);
  const RecurrentSlot cells = recurrent.slot(state_);
  for (std::size_t i = 0; i < cells_.size(); ++i)
    cells_[i].forward(exec, narrow, cells.part(i * s, s), narrow);
  out_.forward(exec, narrow, y);
}

void SruBranch::forward_add(Exec& exec, ConstRows x, const RecurrentBlock& recurrent, Rows y) const {
  const Workspace::Scope scope(exec.ws);
  const std::size_t d = in_.d_in();
  const Rows branch{exec.ws.take<float>(x.n * d), x.n, d, d};
  forward(exec, x, recurrent, branch);
  for (std::size_t t = 0; t < x.n; ++t) out_.kernels().add(y.row(t), branch.row(t), d);
}

}  // namespace terrace
