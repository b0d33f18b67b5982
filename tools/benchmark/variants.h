// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/presets.h"

namespace terrace::tools {

/// A model that is to be made with random weights: one side of a comparison.
struct PlannedModel {
  std::string variant;  ///< "sparse", "dense", a row of Table 1, a value of a sweep
  ModelConfig config;
  std::uint32_t blocks_left_out = 0;  ///< cut off by keep_blocks
};

/// Which sizes the rows of Table 1 have where attention is sparse.
enum class Table1Rule {
  kPreset,  ///< d_ff and number of blocks of the sparse preset: they make up for parameters that attention
            ///< loses
  kLayers   ///< those of the dense twin: only the named layers differ, and parameters fall
};

/// The rows of Table 1 of "Sparse is Enough in Scaling Transformers": dense, +FF, +QKV, +FF+QKV and
/// +FF+QKV+output. Each takes the named layers from the sparse preset and the rest from its dense twin. With
/// kPreset, which is what Trax's own timing script does (trax/supervised/decoding_timing_test.py), the last
/// row is the sparse preset itself. Throws UsageError for a preset without a sparse variant.
std::vector<PlannedModel> table1_models(const Preset& preset, Table1Rule rule);

/// One hyper-parameter of a preset's sparse layers, or of its dense ones cut into experts, and the values to
/// try.
struct Sweep {
  std::string parameter;
  std::vector<std::uint32_t> values;
};

/// "block-size=16,32,64". Throws UsageError that names the known parameters, or the value that is no number.
Sweep parse_sweep(std::string_view text);

/// "block-size (N of the feed-forward part), ...": for help texts.
std::string sweep_parameters_help();

/// The dense twin, and the sparse variant (or the cut twin) with each value in turn; everything else stays
/// the same, even d_ff. Throws UsageError that names the value and what it must divide.
std::vector<PlannedModel> sweep_models(const Preset& preset, const Sweep& sweep);

/// Cuts every model down to the first `blocks` blocks of its decoder, for presets that do not fit into memory
/// as a whole; all layers keep their width. Throws UsageError when one has fewer.
void keep_blocks(std::vector<PlannedModel>& models, std::uint32_t blocks);

}  // namespace terrace::tools
