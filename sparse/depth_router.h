// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/exec.h"
#include "engine/linear.h"

namespace terrace {

/// The router of a Mixture-of-Depths block: which tokens run it, decided for each token by itself.
///
///   r = router . x
///   s = out relu(in x)          with a predictor;  s = r without
///   the token runs the block iff s > 0, and its update counts r times:   x + r * (block(x) - x)
///
/// In training the k largest r of a sequence run, which looks ahead; the predictor (or the router itself) has
/// learned to say from x alone who will be among them, so that a prompt and its tokens one by one choose
/// alike. A NaN never runs. Source: Raposo et al. 2024 (arXiv 2404.02258), sec. 3.3 to 3.5. Cost per call: d
/// + w * (d + 1) weights once, two phases at most.
class DepthRouter {
 public:
  DepthRouter() = default;
  /// router [1, d]; predictor in [w, d] and out [1, w], or neither.
  DepthRouter(const Linear& router, const Linear& in, const Linear& out)
      : router_(router), in_(in), out_(out) {}

  /// Rows of x that run: their indices, ascending, and the factor r of each. Returns their number; both
  /// arrays hold x.n.
  std::size_t choose(Exec& exec, ConstRows x, std::uint32_t* chosen, float* factor) const;

 private:
  Linear router_;
  Linear in_;
  Linear out_;
};

}  // namespace terrace
