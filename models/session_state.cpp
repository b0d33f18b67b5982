// SPDX-License-Identifier: Apache-2.0
#include "models/session_state.h"

#include <cstring>

namespace terrace {

StackState::StackState(const StateLayout& layout, KvType kv_type, std::size_t max_length)
    : recurrent_(layout.recurrent.size() * sizeof(float), "the recurrent state"),
      recurrent_floats_(layout.recurrent.size()) {
  kv_.reserve(layout.kv.size());
  for (const KvSpec& s : layout.kv) kv_.emplace_back(s.n_heads, s.d_k, s.d_v, kv_type, max_length);
  lsh_.reserve(layout.lsh.size());
  for (const LshSpec& s : layout.lsh) {
    lsh_.emplace_back(s.n_heads, s.d_k, s.d_v, s.n_hashes, s.n_buckets, max_length);
  }
}

void StackState::truncate(std::size_t length) {
  for (KvCache& cache : kv_) cache.truncate(length);
  for (LshState& state : lsh_) state.truncate(length);
}

StackState StackState::fork() const {
  StackState copy;
  copy.kv_.reserve(kv_.size());
  for (const KvCache& cache : kv_) copy.kv_.push_back(cache.fork());
  copy.lsh_.reserve(lsh_.size());
  for (const LshState& state : lsh_) copy.lsh_.push_back(state.fork());
  copy.recurrent_ = VirtualBuffer(recurrent_.bytes(), "the recurrent state");
  copy.recurrent_floats_ = recurrent_floats_;
  if (recurrent_floats_)
    std::memcpy(copy.recurrent_.data(), recurrent_.data(), recurrent_floats_ * sizeof(float));
  return copy;
}

void StackState::save(ByteSink& sink) const {
  write_u64(sink, recurrent_floats_);
  write_array(sink, recurrent().data(), recurrent_floats_);
  for (const KvCache& cache : kv_) cache.save(sink);
  for (const LshState& state : lsh_) state.save(sink);
}

void StackState::load(ByteSource& source) {
  expect_u64(source, recurrent_floats_, "size of the recurrent state");
  read_array(source, recurrent().data(), recurrent_floats_);
  for (KvCache& cache : kv_) cache.load(source);
  for (LshState& state : lsh_) state.load(source);
}

std::size_t StackState::cache_bytes() const noexcept {
  std::size_t bytes = 0;
  for (const KvCache& cache : kv_) bytes += cache.bytes();
  for (const LshState& state : lsh_) bytes += state.bytes();
  return bytes;
}

}  // namespace terrace
