// SPDX-License-Identifier: Apache-2.0
#include "models/session_state.h"

#include <fmt/format.h>

#include <cstring>

namespace terrace {

StackState::StackState(const StateLayout& layout, KvType kv_type, std::size_t max_length)
    : layout_(&layout),
      recurrent_(layout.recurrent.size() * sizeof(float), "the recurrent state"),
      recurrent_floats_(layout.recurrent.size()) {
  kv_.reserve(layout.kv.size());
  for (const KvSpec& s : layout.kv) kv_.emplace_back(s.n_heads, s.d_k, s.d_v, kv_type, max_length);
  lsh_.reserve(layout.lsh.size());
  for (const LshSpec& s : layout.lsh) {
    lsh_.emplace_back(s.n_heads, s.d_k, s.d_v, kv_type, s.n_hashes, s.n_buckets, max_length);
  }
  routes_.reserve(layout.n_routes);
  for (std::size_t i = 0; i < layout.n_routes; ++i) routes_.emplace_back(max_length);
}

void StackState::truncate(std::size_t length) {
  for (std::size_t i = 0; i < kv_.size(); ++i) kv_[i].truncate(slots_of(layout_->kv[i].route, length));
  for (std::size_t i = 0; i < lsh_.size(); ++i) lsh_[i].truncate(slots_of(layout_->lsh[i].route, length));
  for (SlotPositions& route : routes_) route.truncate(length);
}

StackState StackState::fork() const {
  StackState copy;
  copy.layout_ = layout_;
  copy.kv_.reserve(kv_.size());
  for (const KvCache& cache : kv_) copy.kv_.push_back(cache.fork());
  copy.lsh_.reserve(lsh_.size());
  for (const LshState& state : lsh_) copy.lsh_.push_back(state.fork());
  copy.routes_.reserve(routes_.size());
  for (const SlotPositions& route : routes_) copy.routes_.push_back(route.fork());
  copy.recurrent_ = VirtualBuffer(recurrent_.bytes(), "the recurrent state");
  copy.recurrent_floats_ = recurrent_floats_;
  if (recurrent_floats_)
    std::memcpy(copy.recurrent_.data(), recurrent_.data(), recurrent_floats_ * sizeof(float));
  return copy;
}

void StackState::save(ByteSink& sink) const {
  write_u64(sink, recurrent_floats_);
  write_array(sink, recurrent().data(), recurrent_floats_);
  for (const SlotPositions& route : routes_) route.save(sink);
  for (const KvCache& cache : kv_) cache.save(sink);
  for (const LshState& state : lsh_) state.save(sink);
}

void StackState::load(ByteSource& source, std::size_t length) {
  expect_u64(source, recurrent_floats_, "size of the recurrent state");
  read_array(source, recurrent().data(), recurrent_floats_);
  for (SlotPositions& route : routes_) route.load(source, length);
  const auto check = [&](std::size_t n, std::size_t route) {
    const std::size_t most = slots_of(route, length);
    TERRACE_CHECK(n <= most, kBadFile,
                  fmt::format("state: a layer holds {} positions, expected at most {}", n, most));
  };
  for (std::size_t i = 0; i < kv_.size(); ++i) {
    kv_[i].load(source);
    check(kv_[i].length(), layout_->kv[i].route);
  }
  for (std::size_t i = 0; i < lsh_.size(); ++i) {
    lsh_[i].load(source);
    check(lsh_[i].length(), layout_->lsh[i].route);
  }
}

std::size_t StackState::cache_bytes() const noexcept {
  std::size_t bytes = 0;
  for (const KvCache& cache : kv_) bytes += cache.bytes();
  for (const LshState& state : lsh_) bytes += state.bytes();
  return bytes;
}

}  // namespace terrace
