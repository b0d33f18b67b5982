// SPDX-License-Identifier: Apache-2.0
#include "tools/common/generation_stats.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "engine/bandwidth.h"
#include "models/model_cost.h"
#include "models/state_plan.h"
#include "tools/common/json_text.h"

namespace terrace::tools {
namespace {

/// Zero where nothing was counted or timed.
double ratio(double a, double b) noexcept { return b > 0 ? a / b : 0; }

}  // namespace

void GenerationStats::measure(const Session& session, Runtime& runtime, KvType kv_type,
                              bool exact_attention) {
  const ModelConfig& config = session.model().config();
  const ModelCost cost = model_cost(session.model(), session.widths());
  const std::size_t middle = (first_position + session.position()) / 2;
  const StateCost read = state_cost(config, state_plan(config),
                                    {.kv_type = kv_type,
                                     .position = middle,
                                     .encoder_length = session.encoder_length(),
                                     .exact_attention = exact_attention});
  bytes_per_token = static_cast<double>(cost.total.touched_bytes + read.bytes);
  active_weight_share = cost.active_share();

  peak_rss_bytes = peak_resident_bytes();  // before the probe takes memory
  routed_shares = session.routed_shares();
  const StateBytes state = session.state_bytes();
  kv_bytes = state.kv_cache;
  state_bytes = state.kv_cache + state.recurrent + state.snapshots + state.workspace;

  read_bw_bytes_per_s = measure_read_bandwidth(runtime);
}

std::string GenerationStats::text() const {
  const auto tokens = static_cast<double>(decode_tokens);
  const double bytes_per_s = bytes_per_token * ratio(tokens, decode_seconds);
  const auto line = [](const char* name, const std::string& value) {
    return fmt::format("{:<16}{}\n", name, value);
  };
  const auto reading = [&](const char* name, std::size_t n, double seconds) {
    return line(name, fmt::format("{} tokens, {:.2f} s, {:.1f} tokens/s", n, seconds,
                                  ratio(static_cast<double>(n), seconds)));
  };
  std::string text = encoder_tokens == 0 ? reading("prompt", prompt_tokens, prompt_seconds)
                                         : reading("encoder", encoder_tokens, encoder_seconds) +
                                               reading("prefill", encoder_tokens + 1, prefill_seconds);
  text += line("decode", fmt::format("{} tokens, {:.2f} s, {:.1f} tokens/s, {:.3f} ms/token", decode_tokens,
                                     decode_seconds, ratio(tokens, decode_seconds),
                                     1e3 * ratio(decode_seconds, tokens)));
  if (speculation) {
    const auto n_passes = static_cast<double>(speculation->n_passes);
    text += line("speculation",
                 fmt::format("{} passes, {:.2f} tokens each; {} of {} guesses right, {:.2f} s to guess",
                             speculation->n_passes, ratio(tokens, n_passes), speculation->n_right,
                             speculation->n_drafted, speculation->draft_seconds));
  } else {
    text += line("memory traffic",
                 fmt::format("{:.2f} MB read/token, {:.2f} GB/s", bytes_per_token / 1e6, bytes_per_s / 1e9));
    text += line("read bandwidth",
                 fmt::format("{:.2f} GB/s measured, {:.0f} % of it used", read_bw_bytes_per_s / 1e9,
                             100 * ratio(bytes_per_s, read_bw_bytes_per_s)));
  }
  text +=
      line("active weights", fmt::format("{:.1f} % of the parameters per token", 100 * active_weight_share));
  if (!routed_shares.empty()) {
    std::vector<double> percent;
    for (const double share : routed_shares) percent.push_back(100 * share);
    text += line("routed blocks", fmt::format("ran on {:.1f} % of the tokens", fmt::join(percent, ", ")));
  }
  text +=
      line("state", fmt::format("{:.2f} MB, of which keys and values {:.2f} MB",
                                static_cast<double>(state_bytes) / 1e6, static_cast<double>(kv_bytes) / 1e6));
  text += line("peak memory", fmt::format("{:.1f} MB resident", static_cast<double>(peak_rss_bytes) / 1e6));
  text += line("disk", fmt::format("{} waits for a page while decoding, {:.2f} MB read", decode_reads.faults,
                                   static_cast<double>(decode_reads.bytes) / 1e6));
  text += line("sampler", fmt::format("{}, seed {}", sampler, seed));
  return text;
}

std::string GenerationStats::json() const {
  const auto tokens = static_cast<double>(decode_tokens);
  const double gb_per_s = bytes_per_token * ratio(tokens, decode_seconds) / 1e9;
  nlohmann::ordered_json figures = {
      {"prompt_tokens", prompt_tokens},
      {"prompt_seconds", prompt_seconds},
      {"prompt_tokens_per_s", ratio(static_cast<double>(prompt_tokens), prompt_seconds)},
      {"decode_tokens", decode_tokens},
      {"decode_seconds", decode_seconds},
      {"decode_tokens_per_s", ratio(tokens, decode_seconds)},
      {"ms_per_token", 1e3 * ratio(decode_seconds, tokens)},
      {"bytes_per_token", bytes_per_token},
      {"gb_per_s", gb_per_s},
      {"read_bw_gb_per_s", read_bw_bytes_per_s / 1e9},
      {"bw_share", ratio(gb_per_s, read_bw_bytes_per_s / 1e9)},
      {"active_weight_share", active_weight_share},
      {"kv_bytes", kv_bytes},
      {"state_bytes", state_bytes},
      {"peak_rss_bytes", peak_rss_bytes},
      {"decode_page_faults", decode_reads.faults},
      {"decode_disk_bytes", decode_reads.bytes},
      {"sampler", sampler},
      {"seed", seed}};
  if (speculation) {
    figures["speculation"] = {{"passes", speculation->n_passes},
                              {"drafted_tokens", speculation->n_drafted},
                              {"accepted_tokens", speculation->n_right},
                              {"draft_seconds", speculation->draft_seconds},
                              {"verify_seconds", speculation->verify_seconds}};
    // What a pass reads depends on how many units its tokens share.
    for (const char* key : {"bytes_per_token", "gb_per_s", "bw_share"}) figures[key] = nullptr;
  }
  if (!routed_shares.empty()) figures["routed_shares"] = routed_shares;
  if (encoder_tokens > 0) {
    figures["encoder_tokens"] = encoder_tokens;
    figures["encoder_seconds"] = encoder_seconds;
    figures["prefill_tokens"] = encoder_tokens + 1;
    figures["prefill_seconds"] = prefill_seconds;
  }
  return json_text(figures, -1);
}

}  // namespace terrace::tools
