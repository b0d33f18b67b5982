// SPDX-License-Identifier: Apache-2.0
#include "models/block.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <vector>

#include "models/whole_rows.h"

namespace terrace {

namespace {

/// Whether the whole-sequence form is the step-by-step form, so that no other is needed.
bool steps_are_whole(const AttentionLayer& attention) noexcept {
  return attention.causal() && attention.steps_equal_evaluation();
}

/// Positions of the chosen rows.
void gather_positions(const RowPositions& positions, std::span<const std::uint32_t> chosen,
                      std::uint32_t* to) noexcept {
  for (const std::uint32_t row : chosen) *to++ = static_cast<std::uint32_t>(positions[row]);
}

/// selected = the chosen rows of x.
void gather_rows(ConstRows x, std::span<const std::uint32_t> chosen, Rows selected) noexcept {
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    std::memcpy(selected.row(i), x.row(chosen[i]), x.width * sizeof(float));
  }
}

/// x += r (y - x) for the chosen rows of x, y being what became of them.
void add_updates(const Exec& exec, std::span<const std::uint32_t> chosen, const float* r, ConstRows y,
                 Rows x) noexcept {
  exec.for_range(chosen.size(), 1, 4 * x.width, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      float* row = x.row(chosen[i]);
      for (std::size_t c = 0; c < x.width; ++c) row[c] += r[i] * (y.row(i)[c] - row[c]);
    }
  });
}

/// What a layer's state is now, in the workspace.
const float* copy_of(const Exec& exec, const RecurrentSlot& state) {
  auto* const copy = exec.ws.take<float>(state.now().size());
  std::copy(state.now().begin(), state.now().end(), copy);
  return copy;
}

/// A pass over the chosen rows has left the state as it was after each of them, one after the other; now
/// every row of n_rows leaves what the chosen ones up to it made of `before`.
void leave_all_rows(const RecurrentSlot& state, const float* before, std::span<const std::uint32_t> chosen,
                    std::size_t n_rows) noexcept {
  std::size_t n_run = chosen.size();
  for (std::size_t t = n_rows - 1; t-- > 0;) {  // backwards: row i of the chosen ones is not before row i
    while (n_run > 0 && chosen[n_run - 1] > t) --n_run;
    const float* const after = n_run == 0               ? before
                               : n_run == chosen.size() ? state.now().data()
                                                        : state.after(n_run - 1);
    if (after != state.after(t)) std::copy_n(after, state.now().size(), state.after(t));
  }
}

DepthRouter build_router(const LayerBuilder& build, const std::string& name, std::size_t d_model,
                         std::size_t predictor_width) {
  const WeightView router{build.binder.f32(name + ".router", {d_model}), nullptr, 1, d_model, d_model};
  const Linear decided_by_router;
  const std::string predictor = name + ".predictor";
  return {Linear(build.kernels, router, nullptr),
          predictor_width ? build.linear(predictor + ".in", d_model, predictor_width) : decided_by_router,
          predictor_width ? build.linear(predictor + ".out", predictor_width, 1) : decided_by_router};
}

}  // namespace

Block::Block(const LayerBuilder& build, const std::string& name, const StackConfig& config,
             std::uint32_t index, std::size_t d_model, std::size_t d_ff, bool causal)
    : parallel_(config.parallel),
      last_swap_(causal || config.two_swaps),
      recurrent_{build.state.recurrent.size(), 0},
      ff_(build, name + ".ff", config.ff, d_model, d_ff, config.center_norm, !config.parallel) {
  const std::size_t first_kv = build.state.kv.size();
  const std::size_t first_lsh = build.state.lsh.size();
  const AttentionConfig layer =
      attention_of(build.config, config, index, static_cast<std::uint32_t>(d_model));
  for (std::uint32_t j = 0; j < config.n_attention; ++j) {
    const std::string attention = fmt::format("{}.attention.{}", name, j);
    attention_.push_back({build.norm(attention + ".norm", d_model, config.center_norm),
                          AttentionLayer(build, attention, layer, d_model, causal || layer.causal)});
  }
  if (causal && build.config.family == Family::kTransformer) {
    cross_norm_ = build.norm(name + ".cross.norm", d_model, config.center_norm);
    cross_.emplace(build, name + ".cross", config.cross, d_model);
  }
  recurrent_.size = build.state.recurrent.size() - recurrent_.offset;
  if (is_routed(config, index)) {
    router_ = build_router(build, name + ".depth", d_model, config.depths->predictor_width);
    route_ = build.state.add_route(first_kv, first_lsh);
  }
}

bool Block::steps_equal_evaluation() const noexcept {
  return std::all_of(attention_.begin(), attention_.end(),
                     [](const AttentionSublayer& s) { return s.attention.steps_equal_evaluation(); });
}

std::size_t Block::length_multiple() const noexcept {
  std::size_t multiple = 1;
  for (const AttentionSublayer& s : attention_) multiple = std::lcm(multiple, s.attention.length_multiple());
  return multiple;
}

std::size_t Block::encode_passes() const noexcept {
  std::size_t passes = 1;  // feed-forward
  for (const AttentionSublayer& s : attention_) {
    passes += steps_are_whole(s.attention) ? 1 : s.attention.encode_passes();
  }
  return passes + (cross_ ? 1 : 0);
}

void Block::forward_parallel(StepContext& context, Rows x, std::size_t width) const {
  Exec& exec = context.exec;
  const AttentionSublayer& sublayer = attention_.front();
  const Rows h = take_rows(exec, x.n, x.width);
  const Rows y = take_rows(exec, x.n, x.width);
  const Rows z = take_rows(exec, x.n, x.width);
  sublayer.norm.forward(exec, x, h);
  sublayer.attention.forward(context, h, y);
  ff_.forward(exec, h, context.recurrent, width, z);
  add_rows(sublayer.norm.kernels(), exec, y, x);
  add_rows(sublayer.norm.kernels(), exec, z, x);
}

void Block::forward(StepContext& context, Streams& streams, std::size_t width, const KvCache* cross) const {
  if (router_) {
    forward_routed(context, streams.x1, width);
  } else {
    forward_all(context, streams, width, cross);
  }
}

void Block::forward_routed(StepContext& context, Rows x, std::size_t width) const {
  Exec& exec = context.exec;
  const Workspace::Scope scope(exec.ws);
  auto* chosen = exec.ws.take<std::uint32_t>(x.n);
  auto* positions = exec.ws.take<std::uint32_t>(x.n);
  auto* r = exec.ws.take<float>(x.n);
  const std::size_t n = router_->choose(exec, x, chosen, r);
  if (n == 0) {
    for (std::size_t t = 0; t + 1 < x.n; ++t) context.recurrent.slot(recurrent_).leave(t);
    return;
  }
  gather_positions(context.positions, {chosen, n}, positions);
  context.state.route(route_).append({positions, n});
  Streams selected{take_rows(exec, n, x.width), {}};
  gather_rows(x, {chosen, n}, selected.x1);
  const RecurrentSlot own = context.recurrent.slot(recurrent_);
  const float* const before = own.leaves_rows() ? copy_of(exec, own) : nullptr;
  StepContext inner{exec, context.state, context.recurrent, std::span<const std::uint32_t>(positions, n)};
  forward_all(inner, selected, width, nullptr);
  if (before) leave_all_rows(own, before, {chosen, n}, x.n);
  add_updates(exec, {chosen, n}, r, selected.x1, x);
}

void Block::forward_all(StepContext& context, Streams& streams, std::size_t width,
                        const KvCache* cross) const {
  Exec& exec = context.exec;
  const Workspace::Scope scope(exec.ws);
  if (parallel_) return forward_parallel(context, streams.x1, width);
  const DenseKernels& kernels = attention_.front().norm.kernels();
  const std::size_t n = streams.x1.n;
  const std::size_t d = streams.x1.width;
  const Rows h = take_rows(exec, n, d);
  const Rows y = take_rows(exec, n, d);
  for (const AttentionSublayer& sublayer : attention_) {
    sublayer.norm.forward(exec, streams.input(), h);
    sublayer.attention.forward(context, h, y);
    add_rows(kernels, exec, y, streams.x1);
    if (streams.reversible()) streams.swap();
  }
  if (cross_) {
    cross_norm_.forward(exec, streams.input(), h);
    cross_->forward(exec, h, context.recurrent, *cross, y);
    add_rows(kernels, exec, y, streams.x1);
  }
  ff_.forward(exec, streams.input(), context.recurrent, width, y);
  add_rows(kernels, exec, y, streams.x1);
  if (streams.reversible() && last_swap_) streams.swap();
}

void Block::attention_whole(EncodeContext& context, const AttentionSublayer& sublayer, Streams& streams,
                            StackState& state) {
  if (!steps_are_whole(sublayer.attention)) {
    sublayer.attention.encode(context, sublayer.norm, streams.input(), streams.x1);
    return;
  }
  context.for_blocks(streams.x1.n, [&](std::size_t begin, std::size_t count) {
    StepContext step{context.exec, state, state.recurrent().data(), context.positions.from(begin)};
    const Rows h = normed_block(context, sublayer.norm, streams.input(), begin, count);
    const Rows y = take_rows(context.exec, count, h.width);
    sublayer.attention.forward(step, h, y);
    add_rows(sublayer.norm.kernels(), context.exec, y, streams.x1.slice(begin, count));
  });
}

void Block::evaluate(EncodeContext& context, Streams& streams, StackState& state,
                     const KvCache* cross) const {
  if (router_) {
    evaluate_routed(context, streams.x1, state);
  } else {
    evaluate_all(context, streams, state, cross);
  }
}

void Block::evaluate_routed(EncodeContext& context, Rows x, StackState& state) const {
  std::vector<std::uint32_t> chosen;
  std::vector<float> r;
  context.for_blocks(x.n, [&](std::size_t begin, std::size_t count) {
    std::array<std::uint32_t, EncodeContext::kRowsPerBlock> rows;
    std::array<float, EncodeContext::kRowsPerBlock> factors;
    const std::size_t n = router_->choose(context.exec, x.slice(begin, count), rows.data(), factors.data());
    for (std::size_t i = 0; i < n; ++i) chosen.push_back(static_cast<std::uint32_t>(begin) + rows[i]);
    r.insert(r.end(), factors.begin(), factors.begin() + static_cast<std::ptrdiff_t>(n));
  });
  if (chosen.empty()) return;
  // Rows of zeros fill the last chunk: the causal future of every row that counts.
  const std::size_t multiple = length_multiple();
  const std::size_t padded = (chosen.size() + multiple - 1) / multiple * multiple;
  std::vector<std::uint32_t> positions(padded);
  gather_positions(context.positions, chosen, positions.data());
  const WholeRows selected(padded, x.width, "the rows of a routed block");
  gather_rows(x, chosen, selected.rows());
  Streams streams{selected.rows(), {}};
  EncodeContext inner{context.exec, padded, context.tick, std::span<const std::uint32_t>(positions)};
  evaluate_all(inner, streams, state, nullptr);
  add_updates(context.exec, chosen, r.data(), streams.x1, x);
}

void Block::evaluate_all(EncodeContext& context, Streams& streams, StackState& state,
                         const KvCache* cross) const {
  for (const AttentionSublayer& sublayer : attention_) {
    attention_whole(context, sublayer, streams, state);
    if (streams.reversible()) streams.swap();
  }
  if (cross_) {
    context.for_blocks(streams.x1.n, [&](std::size_t begin, std::size_t count) {
      const Rows h = normed_block(context, cross_norm_, streams.input(), begin, count);
      const Rows y = take_rows(context.exec, count, h.width);
      cross_->forward(context.exec, h, state.recurrent().data(), *cross, y);
      add_rows(cross_norm_.kernels(), context.exec, y, streams.x1.slice(begin, count));
    });
  }
  context.for_blocks(streams.x1.n, [&](std::size_t begin, std::size_t count) {
    const ConstRows x = streams.input().slice(begin, count);
    const Rows y = take_rows(context.exec, count, x.width);
    ff_.forward(context.exec, x, state.recurrent().data(), ff_.default_width(), y);
    add_rows(attention_.front().norm.kernels(), context.exec, y, streams.x1.slice(begin, count));
  });
  if (streams.reversible() && last_swap_) streams.swap();
}

}  // namespace terrace
