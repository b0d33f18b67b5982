// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmark/exact_attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "tools/common/command.h"

namespace terrace::tools {
namespace {

using Kind = AttentionConfig::Kind;

bool is_lsh(const AttentionConfig& a) noexcept {
  return a.kind == Kind::kLsh || a.kind == Kind::kPureLsh || a.kind == Kind::kMixedLsh;
}

AttentionConfig exact(const AttentionConfig& lsh) {
  AttentionConfig a;
  if (lsh.sparse_format) {
    a.kind = Kind::kMultiplicativeConv;
    a.n_modules = lsh.n_modules;
    a.share_qk = lsh.n_weights == 2;
    return a;
  }
  a.d_head = lsh.d_head;
  if (lsh.kind == Kind::kLsh || lsh.n_weights == 2) {
    a.kind = Kind::kSelf;
    a.share_qk = true;
    a.d_value = lsh.d_value;
    a.mem_len = lsh.mem_len;
    a.drop_len = lsh.drop_len;
  } else {
    a.rotary = lsh.rotary;
  }
  return a;
}

}  // namespace

bool has_lsh_attention(const ModelConfig& config) noexcept {
  return std::any_of(config.decoder.attention.begin(), config.decoder.attention.end(), is_lsh);
}

ModelConfig with_exact_attention(const ModelConfig& config) {
  ModelConfig c = config;
  for (AttentionConfig& attention : c.decoder.attention) {
    if (is_lsh(attention)) attention = exact(attention);
  }
  return c;
}

void choose_attention(std::vector<PlannedModel>& models, std::string_view which) {
  if (which == "lsh") return;
  std::vector<PlannedModel> chosen;
  for (PlannedModel& model : models) {
    if (!has_lsh_attention(model.config)) {
      throw UsageError(fmt::format("--attention {}: the {} model has no LSH attention: all of it is exact",
                                   which, model.variant));
    }
    PlannedModel twin = model;
    twin.variant += " exact";
    twin.config = with_exact_attention(model.config);
    if (which == "both") chosen.push_back(std::move(model));
    chosen.push_back(std::move(twin));
  }
  models = std::move(chosen);
}

}  // namespace terrace::tools
