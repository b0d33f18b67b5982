// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/linear.h"
#include "engine/memory.h"
#include "engine/norm.h"
#include "models/encode_context.h"
#include "models/rows.h"

namespace terrace {

/// Rows of a whole sequence, for layers that must see all of it at once; owns its memory (not workspace).
class WholeRows {
 public:
  WholeRows(std::size_t n, std::size_t width, const char* what)
      : buffer_(n * width * sizeof(float), what), n_(n), width_(width) {}

  Rows rows() const noexcept { return {reinterpret_cast<float*>(buffer_.data()), n_, width_, width_}; }
  Rows block(std::size_t begin, std::size_t count) const noexcept { return rows().slice(begin, count); }

 private:
  VirtualBuffer buffer_;
  std::size_t n_;
  std::size_t width_;
};

/// norm(x) for rows [begin, begin + count), in the workspace.
inline Rows normed_block(EncodeContext& context, const Norm& norm, ConstRows x, std::size_t begin,
                         std::size_t count) {
  const Rows h = take_rows(context.exec, count, x.width);
  norm.forward(context.exec, x.slice(begin, count), h);
  return h;
}

/// sum += out(attended) over all rows in one pass, or sum += attended where there is no output map (null).
template <class Map>
void add_output(EncodeContext& context, const DenseKernels& kernels, const Map* out, ConstRows attended,
                Rows sum) {
  context.for_blocks(sum.n, [&](std::size_t begin, std::size_t count) {
    ConstRows y = attended.slice(begin, count);
    if (out) {
      const Rows mapped = take_rows(context.exec, count, sum.width);
      out->forward(context.exec, y, mapped);
      y = mapped;
    }
    add_rows(kernels, context.exec, y, sum.slice(begin, count));
  });
}

}  // namespace terrace
