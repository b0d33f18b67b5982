// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace terrace::tools {

/// To be called before any file is opened. A standard stream that the caller closed would otherwise be the
/// next file: a prompt read from the model, a message written into a saved state. Afterwards using one fails
/// as it should, but for messages, which go nowhere. A pipe that nobody reads and a file that may not grow
/// then fail as writing, which ends in a message, instead of ending the process.
void prepare_standard_streams() noexcept;

}  // namespace terrace::tools
