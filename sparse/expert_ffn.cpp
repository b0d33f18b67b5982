// SPDX-License-Identifier: Apache-2.0
#include "sparse/expert_ffn.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/error.h"

namespace terrace {
namespace {

/// Rows of w2 added in one kernel call: bounds the pointers on the stack of a chunk.
constexpr std::size_t kRowsPerCall = 32;

float softmax_at(const float* z, std::size_t n, std::size_t i) noexcept {
  float sum = 0.0F;
  for (std::size_t e = 0; e < n; ++e) sum += std::exp(z[e] - z[i]);
  return 1.0F / sum;
}

/// The `k` largest of z[0..n) to `largest`, by index. `scratch` holds n.
void take_largest(const float* z, std::size_t n, std::size_t k, std::uint32_t* scratch,
                  std::uint32_t* largest) noexcept {
  const auto value = [z](std::uint32_t i) {
    return std::isnan(z[i]) ? -std::numeric_limits<float>::infinity() : z[i];
  };
  std::iota(scratch, scratch + n, 0U);
  std::nth_element(scratch, scratch + k - 1, scratch + n, [&](std::uint32_t a, std::uint32_t b) {
    return value(a) > value(b) || (value(a) == value(b) && a < b);
  });
  std::sort(scratch, scratch + k);
  std::copy_n(scratch, k, largest);
}

}  // namespace

/// Which experts the tokens of a pass use; [..] are shapes.
struct ExpertFfn::Choice {
  std::size_t n_active;
  std::uint32_t* experts;  ///< [T, n_active], ascending
  float* gains;            ///< [T, n_active], or null for 1
};

/// The same from the other side: the tokens of each expert in use, one after the other. An entry of `tokens`
/// is a pair of an expert and a token that uses it.
struct ExpertFfn::Members {
  std::size_t n_used = 0;           ///< experts
  std::uint32_t* used = nullptr;    ///< [n_used], ascending
  std::size_t* first = nullptr;     ///< [n_used + 1]: the tokens of used[i] are first[i] .. first[i + 1] - 1
  std::uint32_t* tokens = nullptr;  ///< [T * n_active]
  float* gains = nullptr;           ///< of each entry, or null

  std::size_t size() const noexcept { return first[n_used]; }
  std::size_t count(std::size_t i) const noexcept { return first[i + 1] - first[i]; }

  Members(Workspace& ws, const Choice& choice, std::size_t n_tokens, std::size_t n_experts) {
    const std::size_t n = n_tokens * choice.n_active;
    auto* const place = ws.take<std::size_t>(n_experts + 1);
    std::fill_n(place, n_experts + 1, 0);
    for (std::size_t k = 0; k < n; ++k) ++place[choice.experts[k] + 1];
    used = ws.take<std::uint32_t>(n_experts);
    first = ws.take<std::size_t>(n_experts + 1);
    for (std::size_t e = 0; e < n_experts; ++e) {
      if (place[e + 1] > 0) {
        used[n_used] = static_cast<std::uint32_t>(e);
        first[n_used++] = place[e];
      }
      place[e + 1] += place[e];
    }
    first[n_used] = n;
    tokens = ws.take<std::uint32_t>(n);
    if (choice.gains) gains = ws.take<float>(n);
    for (std::size_t k = 0; k < n; ++k) {
      const std::size_t entry = place[choice.experts[k]]++;
      tokens[entry] = static_cast<std::uint32_t>(k / choice.n_active);
      if (gains) gains[entry] = choice.gains[k];
    }
  }
};

ExpertFfn::ExpertFfn(const DenseKernels& kernels, const ExpertWeights& weights, bool gated,
                     bool multiply_by_router)
    : kernels_(&kernels),
      router_(kernels, weights.router, weights.router_bias),
      weights_(weights),
      gated_(gated),
      multiply_by_router_(multiply_by_router) {
  const WeightView& units = weights.units;
  TERRACE_CHECK(weights.router && units && weights.router.cols == units.cols && units.rows > 0 &&
                    units.rows % (runs() * weights.router.rows) == 0,
                kBadArgument,
                fmt::format("feed-forward of experts: units [{}, {}] do not fit a router [{}, {}]",
                            units.rows, units.cols, weights.router.rows, weights.router.cols));
  n_units_ = units.rows / runs() / n_experts();
}

std::size_t ExpertFfn::bytes_per_token(std::size_t n_active) const noexcept {
  const std::size_t router = n_active < n_experts() || multiply_by_router_ ? router_.weight().bytes() : 0;
  const std::size_t vectors = (weights_.bias ? 1 : 0) + (weights_.offsets ? n_active : 0);
  return router + weights_.units.slice_rows(0, runs() * n_units_ * n_active).bytes() +
         vectors * d_model() * sizeof(float);
}

ExpertFfn::Choice ExpertFfn::choose(Exec& exec, ConstRows x, std::size_t n_active,
                                    std::uint32_t* experts) const {
  Workspace& ws = exec.ws;
  const std::size_t n = x.n * n_active;
  const Choice choice{n_active, experts ? experts : ws.take<std::uint32_t>(n),
                      multiply_by_router_ ? ws.take<float>(n) : nullptr};
  if (n_active == n_experts() && !multiply_by_router_) {
    for (std::size_t t = 0; t < x.n; ++t) {
      std::iota(choice.experts + t * n_active, choice.experts + (t + 1) * n_active, 0U);
    }
    return choice;
  }
  const Rows logits{ws.take<float>(x.n * n_experts()), x.n, n_experts(), n_experts()};
  auto* const scratch = ws.take<std::uint32_t>(n_experts());
  router_.forward(exec, x, logits);
  for (std::size_t t = 0; t < x.n; ++t) {
    std::uint32_t* const own = choice.experts + t * n_active;
    take_largest(logits.row(t), n_experts(), n_active, scratch, own);
    if (!choice.gains) continue;
    for (std::size_t k = 0; k < n_active; ++k) {
      choice.gains[t * n_active + k] = softmax_at(logits.row(t), n_experts(), own[k]);
    }
  }
  return choice;
}

void ExpertFfn::forward(Exec& exec, ConstRows x, Rows y, std::size_t n_active, std::uint32_t* experts) const {
  TERRACE_DCHECK(n_active > 0 && n_active <= n_experts());
  const Workspace::Scope scope(exec.ws);
  const Choice choice = choose(exec, x, n_active, experts);
  const Members members(exec.ws, choice, x.n, n_experts());
  const PreparedRows prepared = PreparedRows::unpacked(exec, *kernels_, weights_.units.dtype, x);
  auto* const h = exec.ws.take<float>(members.size() * n_units_);
  activate(exec, prepared, members, h);
  add_up(exec, members, h, y);
}

/// h [members, U]: the activations of every member.
void ExpertFfn::activate(Exec& exec, const PreparedRows& x, const Members& members, float* h) const {
  Workspace& ws = exec.ws;
  const std::size_t n = members.size();
  const PreparedRows rows = x.gathered(exec, {members.tokens, n});
  const Packs packs = packs_for(*kernels_, weights_.units.dtype);
  std::size_t most = 0;  // tokens of an expert
  for (std::size_t i = 0; i < members.n_used; ++i) most = std::max(most, members.count(i));
  const std::size_t pack_bytes = rows.slice(0, most).packs_bytes(packs);
  auto* const g = gated_ ? ws.take<float>(n * n_units_) : nullptr;

  const std::size_t n_items = members.n_used * n_units_;
  const std::size_t work_per_item =
      (runs() - 1) * std::max(row_bytes(weights_.units.dtype, d_model()), n / members.n_used * d_model() / 8);
  const std::uint32_t n_chunks = exec.chunks_of(n_items, work_per_item);
  auto* const scratch = ws.take<std::byte>(n_chunks * pack_bytes);
  const auto chunk_begin = [&](std::size_t chunk) {
    return chunk == n_chunks ? n_items : n_items * chunk / n_chunks / kPackRows * kPackRows;
  };
  exec.team.run(n_chunks, [&](std::uint32_t chunk) {
    const std::size_t last = chunk_begin(std::size_t{chunk} + 1);
    for (std::size_t item = chunk_begin(chunk); item < last;) {
      const std::size_t i = item / n_units_;
      const std::size_t begin = item % n_units_;
      const std::size_t end = std::min(n_units_, begin + (last - item));
      const std::size_t first = members.first[i];
      const PreparedRows own =
          rows.slice(first, members.count(i)).packed_into(*kernels_, packs, scratch + chunk * pack_bytes);
      activate_units(own, members.used[i], begin, end, members.gains ? members.gains + first : nullptr,
                     g ? g + first * n_units_ : nullptr, h + first * n_units_);
      item += end - begin;
    }
  });
}

/// Units [begin, end) of one expert for the rows of x; h and g are [x.size(), U], g is scratch.
void ExpertFfn::activate_units(const PreparedRows& x, std::size_t expert, std::size_t begin, std::size_t end,
                               const float* gains, float* g, float* h) const noexcept {
  const std::size_t n = end - begin;
  const auto run = [&](std::size_t i) { return weights_.units.slice_rows(run_begin(expert, i), n_units_); };
  if (gated_) dot_rows(*kernels_, run(0), begin, end, x, g, n_units_);
  dot_rows(*kernels_, run(runs() - 2), begin, end, x, h, n_units_);
  const float* const unit_bias = weights_.unit_bias;
  for (std::size_t t = 0; t < x.size(); ++t) {
    float* const a = h + t * n_units_ + begin;
    if (unit_bias) kernels_->add(a, unit_bias + expert * n_units_ + begin, n);
    if (gains) {
      for (std::size_t i = 0; i < n; ++i) a[i] *= gains[t];
    }
    float* const gate = gated_ ? g + t * n_units_ + begin : a;
    kernels_->relu(gate, n);
    if (gated_) kernels_->multiply(a, gate, n);
  }
}

void ExpertFfn::add_up(Exec& exec, const Members& members, const float* h, Rows y) const {
  exec.for_range(d_model(), kQ4Columns, members.size() * n_units_, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = 0; t < y.n; ++t) std::fill(y.row(t) + begin, y.row(t) + end, 0.0F);
    for (std::size_t i = 0; i < members.n_used; ++i) {
      const std::size_t expert = members.used[i];
      for (std::size_t k = members.first[i]; k < members.first[i + 1]; ++k) {
        float* const sum = y.row(members.tokens[k]);
        if (weights_.offsets) {
          kernels_->add(sum + begin, weights_.offsets + expert * d_model() + begin, end - begin);
        }
        add_active(expert, h + k * n_units_, begin, end, sum);
      }
    }
    if (!weights_.bias) return;
    for (std::size_t t = 0; t < y.n; ++t) {
      kernels_->add(y.row(t) + begin, weights_.bias + begin, end - begin);
    }
  });
}

/// y += w2_e h, columns [begin, end). Rows of zero activations are not worth reading; a NaN is kept.
void ExpertFfn::add_active(std::size_t expert, const float* h, std::size_t begin, std::size_t end,
                           float* y) const noexcept {
  float active[kRowsPerCall];
  std::uint32_t rows[kRowsPerCall];
  float scratch_a[kRowsPerCall];
  const void* scratch_rows[2 * kRowsPerCall];
  const std::size_t w2 = run_begin(expert, runs() - 1);
  std::size_t n = 0;
  const auto flush = [&] {
    axpy_rows(*kernels_, weights_.units, active, rows, n, begin, end, y, scratch_a, scratch_rows);
    n = 0;
  };
  for (std::size_t i = 0; i < n_units_; ++i) {
    if (h[i] == 0.0F) continue;
    active[n] = h[i];
    rows[n++] = static_cast<std::uint32_t>(w2 + i);
    if (n == kRowsPerCall) flush();
  }
  flush();
}

}  // namespace terrace
