// SPDX-License-Identifier: Apache-2.0
#include "attention/rotary.h"

#include <cmath>
#include <string>

#include "engine/error.h"

namespace terrace {

Rotary::Rotary(std::size_t d_head, std::size_t max_positions, double base, bool interleaved)
    : d_head_(d_head), max_positions_(max_positions), interleaved_(interleaved) {
  TERRACE_CHECK(d_head > 0 && d_head % 2 == 0, kBadConfig,
                "rotary positions need an even head width, found " + std::to_string(d_head));
  TERRACE_CHECK(base > 0, kBadConfig,
                "the base of rotary positions must be positive, found " + std::to_string(base));
  const std::size_t half = d_head / 2;
  table_.resize(max_positions * d_head);
  for (std::size_t j = 0; j < half; ++j) {
    const double frequency = std::pow(base, -2.0 * static_cast<double>(j) / static_cast<double>(d_head));
    for (std::size_t p = 0; p < max_positions; ++p) {
      const double angle = static_cast<double>(p) * frequency;
      table_[p * d_head + j] = static_cast<float>(std::cos(angle));
      table_[p * d_head + half + j] = static_cast<float>(std::sin(angle));
    }
  }
}

// NOLINTNEXTLINE(readability-non-const-parameter): written by reference
void Rotary::rotate_row(float* x, std::size_t n_heads, std::size_t position) const noexcept {
  TERRACE_DCHECK(position < max_positions_);
  const std::size_t half = d_head_ / 2;
  const float* cosine = table_.data() + position * d_head_;
  const float* sine = cosine + half;
  const std::size_t first = interleaved_ ? 2 : 1;      // distance of neighbouring pairs
  const std::size_t second = interleaved_ ? 1 : half;  // distance inside a pair
  for (std::size_t h = 0; h < n_heads; ++h, x += d_head_) {
    for (std::size_t j = 0; j < half; ++j) {
      float& a = x[j * first];
      float& b = x[j * first + second];
      const float turned = a * cosine[j] - b * sine[j];
      b = b * cosine[j] + a * sine[j];
      a = turned;
    }
  }
}

void Rotary::apply(const Exec& exec, Rows x, RowPositions positions) const noexcept {
  TERRACE_DCHECK(x.width % d_head_ == 0);
  exec.for_range(x.n, 1, 2 * x.width, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) rotate_row(x.row(t), x.width / d_head_, positions[t]);
  });
}

}  // namespace terrace
