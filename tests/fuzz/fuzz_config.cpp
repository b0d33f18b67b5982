// SPDX-License-Identifier: Apache-2.0
// libFuzzer target for model configurations: whatever the text, parse_config() returns or throws Error, and
// what it returns can be written, read and planned.
//   cmake --preset fuzz && cmake --build --preset fuzz --target fuzz_config
//   build/fuzz/tests/fuzz_config -max_total_time=60
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "engine/error.h"
#include "models/config.h"
#include "models/presets.h"
#include "models/tensor_plan.h"

namespace {

void read(std::string_view text) {
  try {
    const terrace::ModelConfig config = terrace::parse_config(text);
    const std::string written = terrace::config_to_json(config);
    if (terrace::config_to_json(terrace::parse_config(written)) != written) std::abort();
    if (config.decoder.n_layers <= 64 && (!config.encoder || config.encoder->n_layers <= 64))
      terrace::tensor_plan(config);
  } catch (const terrace::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  read({reinterpret_cast<const char*>(data), size});
  return 0;
}

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

/// Most runs start from a preset: random bytes are no JSON.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  const auto names = terrace::preset_names();
  if (size < 2 || seed % 16 == 0) {
    const terrace::Preset preset = terrace::find_preset(names[seed / 16 % names.size()]);
    const std::string text = terrace::config_to_json(preset.sparse.value_or(preset.dense));
    if (text.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
    std::copy(text.begin(), text.end(), data);
    size = text.size();
  }
  return LLVMFuzzerMutate(data, size, max_size);
}
