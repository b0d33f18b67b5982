// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "attention/kv_rows.h"
#include "models/model.h"
#include "tools/benchmark/variants.h"
#include "tools/common/resources.h"

namespace terrace::tools {

/// One side of a comparison, loaded.
struct Contestant {
  std::string variant;
  std::shared_ptr<const Model> model;
  std::uint32_t blocks_left_out = 0;
};

/// Makes the models in a temporary folder inside `folder`, loads them, and removes the names at once: the
/// files live as long as they are mapped, whatever ends the process. Throws Error{kOutOfMemory} or Error{kIo}
/// with the figures when weights and sessions of `context` positions, with keys and values of
/// `kv_type`, would not fit into the memory or the
/// disk that is free now; of files larger than memory only what `context` tokens touch must fit.
std::vector<Contestant> make_contestants(const std::vector<PlannedModel>& planned, DType dtype,
                                         const std::string& name, const std::string& folder,
                                         std::size_t context, KvType kv_type);

}  // namespace terrace::tools
