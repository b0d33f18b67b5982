// SPDX-License-Identifier: Apache-2.0
#include "models/calibration.h"

#include <algorithm>
#include <unordered_map>

#include "engine/error.h"
#include "models/network.h"
#include "models/rows.h"
#include "models/session.h"

namespace terrace {
namespace {

class Collector final : public RowObserver {
 public:
  void watch(const void* layer, CollectedRows& rows) { rows_[layer] = &rows; }
  void feed_forward_input(const void* layer, ConstRows rows) override {
    const auto found = rows_.find(layer);
    if (found != rows_.end()) found->second->append(rows);
  }

 private:
  std::unordered_map<const void*, CollectedRows*> rows_;
};

}  // namespace

void CollectedRows::append(ConstRows rows) noexcept {
  Rows all = this->rows();
  copy_rows(rows, {all.row(n_), rows.n, width_, width_});
  n_ += rows.n;
}

std::vector<CollectedRows> feed_forward_inputs(const Model& model, Runtime& runtime,
                                               std::span<const TokenId> ids, std::size_t begin,
                                               std::size_t end,
                                               const std::function<bool(std::size_t done)>& progress) {
  const ModelConfig& config = model.config();
  const TokenId start = config.tokens.start;
  const std::size_t context = std::min<std::size_t>(kCalibrationContext, config.max_context);
  const std::size_t per_window = start >= 0 && context > 1 ? context - 1 : context;
  const std::size_t n_windows = (ids.size() + per_window - 1) / per_window;
  const std::shared_ptr<const Model> borrowed(std::shared_ptr<const Model>(), &model);
  Session session(borrowed, runtime, {.max_context = context});

  const std::span<const Block> blocks = model.network().decoder().blocks();
  std::vector<CollectedRows> collected;
  Collector collector;
  for (std::size_t i = begin; i < end; ++i) {
    collected.emplace_back(ids.size() + n_windows, blocks[i].ff().d_model());
  }
  for (std::size_t i = begin; i < end; ++i) collector.watch(&blocks[i].ff(), collected[i - begin]);
  session.set_observer(&collector);
  std::vector<TokenId> window;
  for (std::size_t first = 0; first < ids.size(); first += per_window) {
    window.clear();
    if (per_window < context) window.push_back(start);
    const auto part = ids.subspan(first, std::min(per_window, ids.size() - first));
    window.insert(window.end(), part.begin(), part.end());
    session.rewind(0);
    session.prefill(window, [&](std::size_t done, std::size_t) { return progress(first + done); });
    TERRACE_CHECK(progress(first + part.size()), kCancelled, "the calibration was stopped");
  }
  return collected;
}

}  // namespace terrace
