// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/runtime.h"
#include "engine/tensor.h"
#include "models/model.h"
#include "models/token.h"

namespace terrace {

/// By default a token uses one in this many experts.
inline constexpr std::uint32_t kMoefyActivePart = 4;

struct MoefyOptions {
  std::uint32_t n_experts = 0;
  std::uint32_t n_active = 0;  ///< per token, unless a session says otherwise
  /// Text to learn from; empty: the weights alone decide.
  std::span<const TokenId> text;
  std::optional<DType> dtype = std::nullopt;  ///< of the units; without a value that of the block's w1
  std::uint64_t seed = 1;
  /// Told how much of the work is done; false stops.
  std::function<bool(std::uint64_t done, std::uint64_t total)> progress;
};

/// What one block lost, measured on the last eighth of the text, to which nothing was fitted. Zeros without a
/// text.
struct MoefiedBlock {
  std::uint64_t n_tokens = 0;  ///< measured
  double active_units = 0;     ///< share of the dense layer's activations that are not 0
  double kept = 0;             ///< share of sum |a| * |w2| that lies in the chosen experts ...
  double kept_best = 0;        ///< ... and in the best choice of as many
  double error = 0;       ///< |y - dense y| / |dense y - bias|, root mean square, of the chosen experts ...
  double error_best = 0;  ///< ... and of that choice
};

/// MoEfication: writes `model` to `path` with the dense feed-forward layers of its decoder cut into experts,
/// some of which a token uses. Nothing is trained, and with all experts in use (Session::set_width) the layer
/// computes what the dense one did.
///
///   split    units that are active together share an expert: balanced clusters of their activations over the
///            text (without a text: of their w1 rows)
///   router   linear, fitted by least squares to an expert's size at a token, sqrt(sum (a |w2|)^2) over its
///            units (without a text: cosine to the mean of its normalised w1 rows)
///
/// Source: Zhang et al. 2022, "MoEfication: Transformer Feed-forward Layers are Mixtures of Experts", sec. 3
/// (clustering of parameters, co-activation; similarity and learned routers). Needs a language model whose
/// layers are dense with relu, plain or gated; nested widths are lost, as units move. All other tensors keep
/// their bytes. File and figures do not depend on the number of threads.
///
/// Throws Error{kUnsupported} for a model that is not of this kind, Error{kBadArgument} for a number of
/// experts that does not divide the layers, a text shorter than kLeastMoefyText ids, or q4 rows that are no
/// multiple of 64 long, Error{kBadFile} for values that are not finite and for a tensor that does not have
/// its checksum, Error{kBadToken, kIo, kOutOfMemory, kCancelled}; the target is then unchanged. Memory: 1
/// GiB, or the rows of one block over the text if they are more; and four times a block in f32.
std::vector<MoefiedBlock> moefy_model(const Model& model, Runtime& runtime, const std::string& path,
                                      const MoefyOptions& options);
inline constexpr std::size_t kLeastMoefyText = 256;

}  // namespace terrace
