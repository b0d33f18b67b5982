// SPDX-License-Identifier: Apache-2.0
#include "sparse/sparse_qkv.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "engine/error.h"
#include "engine/prefetch.h"
#include "sparse/convolve.h"

namespace terrace {
namespace {

/// Rows of m joined with x, as the value convolution's modules see them: 2 * d channels.
Rows join(Exec& exec, ConstRows m, ConstRows x, VConcat v_concat, std::size_t n_modules) {
  const std::size_t width = m.width + x.width;
  const Rows joined{exec.ws.take<float>(m.n * width), m.n, width, width};
  // kOriginal puts whole rows side by side, kFixed does so module by module.
  const std::size_t n_parts = v_concat == VConcat::kFixed ? n_modules : 1;
  const std::size_t part = m.width / n_parts;
  for (std::size_t t = 0; t < m.n; ++t) {
    for (std::size_t i = 0; i < n_parts; ++i) {
      std::copy_n(m.row(t) + i * part, part, joined.row(t) + 2 * i * part);
      std::copy_n(x.row(t) + i * part, part, joined.row(t) + (2 * i + 1) * part);
    }
  }
  return joined;
}

void check_reads(const char* name, const LocallyConvDense& conv, std::size_t n_modules, std::size_t width) {
  TERRACE_CHECK(
      conv.n_modules() == n_modules && conv.d_in() == width, kBadArgument,
      fmt::format(
          "sparse attention: the convolution of {} reads {} modules, {} channels; expected {} modules, "
          "{} channels",
          name, conv.n_modules(), conv.d_in(), n_modules, width));
}

}  // namespace

SparseQkv::SparseQkv(const FactoredDense& shared, const LocallyConvDense& q, const LocallyConvDense& k,
                     const LocallyConvDense& v, VConcat v_concat, RecurrentLayout& layout)
    : shared_(shared), q_(q), k_(k), v_(v), v_concat_(v_concat) {
  const std::size_t n_modules = shared_.n_modules();
  const bool joins = v_concat != VConcat::kNone;
  TERRACE_CHECK(shared_ && q_ && v_, kBadArgument, "sparse attention: shared, q and v must all be given");
  TERRACE_CHECK(
      !joins || shared_.d_in() == shared_.d_out(), kBadArgument,
      fmt::format("sparse attention: v_concat needs an input as wide as the multiplicative layer's output, "
                  "found {} and {}",
                  shared_.d_in(), shared_.d_out()));
  check_reads("q", q_, n_modules, shared_.d_out());
  if (k_) check_reads("k", k_, n_modules, shared_.d_out());
  check_reads("v", v_, n_modules, shared_.d_out() * (joins ? 2 : 1));
  TERRACE_CHECK((!k_ || k_.n_steps() == q_.n_steps()) && v_.n_steps() == q_.n_steps(), kBadArgument,
                "sparse attention: the convolutions of q, k and v must see equally many steps");
  tail_ = layout.add(q_.tail_size());
  joined_tail_ = layout.add(joins ? v_.tail_size() : 0);
}

std::size_t SparseQkv::bytes_per_token() const noexcept {
  return shared_.bytes_per_token() + q_.bytes_per_token() + (k_ ? k_.bytes_per_token() : 0) +
         v_.bytes_per_token();
}

std::span<const ConvolutionTask> SparseQkv::together(Rows q, Rows k, Rows v,
                                                     std::array<ConvolutionTask, 3>& tasks) const noexcept {
  std::size_t n_tasks = 0;
  tasks[n_tasks++] = {&q_, q};
  if (k_) tasks[n_tasks++] = {&k_, k};
  if (v_concat_ == VConcat::kNone) tasks[n_tasks++] = {&v_, v};
  return std::span(tasks).first(n_tasks);
}

bool SparseQkv::works_alone(std::size_t n_threads) const noexcept {
  std::array<ConvolutionTask, 3> tasks;
  if (!shared_.works_alone(n_threads) || !convolves_alone(together({}, {}, {}, tasks), n_threads))
    return false;
  const ConvolutionTask joined{&v_, {}};
  return v_concat_ == VConcat::kNone || convolves_alone({&joined, 1}, n_threads);
}

void SparseQkv::forward(Exec& exec, ConstRows x, const RecurrentBlock& recurrent, Rows q, Rows k,
                        Rows v) const {
  const Workspace::Scope scope(exec.ws);
  const Rows m{exec.ws.take<float>(x.n * d_out()), x.n, d_out(), d_out()};
  const RecurrentSlot tail = recurrent.slot(tail_);
  prefetch_bytes(tail.now().data(), tail.now().size_bytes());
  shared_.forward(exec, x, m);

  std::array<ConvolutionTask, 3> tasks;
  convolve(exec, m, tail, together(q, k, v, tasks));
  if (v_concat_ != VConcat::kNone) {
    v_.forward(exec, join(exec, m, x, v_concat_, shared_.n_modules()), recurrent.slot(joined_tail_), v);
  }
  if (!k_ && k.data) {
    for (std::size_t t = 0; t < x.n; ++t) std::copy_n(q.row(t), d_out(), k.row(t));
  }
}

SparseAttentionOutput::SparseAttentionOutput(const FactoredDense& mult, const LocallyConvDense& conv,
                                             RecurrentLayout& layout)
    : mult_(mult), conv_(conv) {
  TERRACE_CHECK(mult_ || conv_, kBadArgument,
                "sparse attention output: neither a multiplicative layer nor a convolution");
  TERRACE_CHECK(
      !mult_ || !conv_ || mult_.d_out() == conv_.d_in(), kBadArgument,
      fmt::format(
          "sparse attention output: the convolution reads {} channels, the multiplicative layer gives {}",
          conv_.d_in(), mult_.d_out()));
  if (conv_) tail_ = layout.add(conv_.tail_size());
}

std::size_t SparseAttentionOutput::bytes_per_token() const noexcept {
  return (mult_ ? mult_.bytes_per_token() : 0) + (conv_ ? conv_.bytes_per_token() : 0);
}

void SparseAttentionOutput::forward(Exec& exec, ConstRows x, const RecurrentBlock& recurrent, Rows y) const {
  if (!conv_) return mult_.forward(exec, x, y);
  if (!mult_) return conv_.forward(exec, x, recurrent.slot(tail_), y);
  const Workspace::Scope scope(exec.ws);
  const Rows m{exec.ws.take<float>(x.n * mult_.d_out()), x.n, mult_.d_out(), mult_.d_out()};
  mult_.forward(exec, x, m);
  conv_.forward(exec, m, recurrent.slot(tail_), y);
}

}  // namespace terrace
