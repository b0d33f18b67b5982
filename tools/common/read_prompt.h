// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "models/session.h"
#include "tools/common/generation_stats.h"
#include "tools/common/model_arguments.h"

namespace terrace::tools {

/// Appends a prompt to the session, after the start token where the session is empty; an encoder-decoder
/// model reads it as its document and starts its answer. Draws a progress bar and fills in the prompt's
/// figures. What is wrong with the prompt is reported with where it came from. Throws what
/// Session::prefill() and encode() throw, and UsageError for rows that the model does not take; tokens that
/// were read before that are in the session.
void read_prompt(const Prompt& prompt, Session& session, GenerationStats& stats);

}  // namespace terrace::tools
