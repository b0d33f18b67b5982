// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>

#include "attention/kv_rows.h"
#include "engine/runtime.h"
#include "models/encoder_input.h"
#include "models/model.h"

namespace terrace {

/// Whole-sequence ("eval") semantics of Trax for a causal model: row t = logits after ids[0..t], all rows in
/// one pass.
///
/// For every layer but LSH and chunked self-attention this is what Session::prefill computes, bit for bit.
/// Trax defines those two differently over a whole sequence (sort and chunk) and token by token, and this
/// function gives the former; the sequence is padded with zeros to the length their chunks need. `document`
/// is the encoder's input (null without encoder); padding ids at its end count where layers cut the sequence
/// into chunks, as in Trax. `sink` is called once per row. `kv_type`: how keys and values are kept where the
/// whole-sequence form keeps them, as a session does. Memory: O(n) rows of d_model. Throws as Session does.
void evaluate(const Model& model, Runtime& runtime, std::span<const TokenId> ids,
              const EncoderInput* document,
              const std::function<void(std::size_t row, std::span<const float> logits)>& sink,
              KvType kv_type = KvType::kF32);

/// Whether evaluate() and Session::prefill are the same function for this model.
bool steps_equal_evaluation(const Model& model) noexcept;

}  // namespace terrace
