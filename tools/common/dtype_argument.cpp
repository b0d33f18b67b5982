// SPDX-License-Identifier: Apache-2.0
#include "tools/common/dtype_argument.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "engine/error.h"
#include "engine/quote.h"
#include "tools/common/command.h"

namespace terrace::tools {

CLI::Option* add_preset_dtypes(CLI::App& command, std::vector<std::string>& to) {
  return command.add_option("--dtype", to, "Weights of a preset: f32, bf16, q8, q4, or several")
      ->delimiter(',')
      ->check(CLI::IsMember(dtype_names()))
      ->capture_default_str()
      ->type_name("TYPE[,...]");
}

CLI::Option* DTypeArguments::add(CLI::App& command) {
  CLI::Option* option = command.add_option("--dtype", dtype, "How weights are stored: f32, bf16, q8 or q4")
                            ->check(CLI::IsMember(dtype_names()))
                            ->capture_default_str()
                            ->type_name("TYPE");
  command
      .add_option("--kind", kinds,
                  "Another dtype for one kind of layer, as inspect names them: --kind controller=q4; may be "
                  "given several times")
      ->type_name("KIND=TYPE")
      ->take_all();
  return option;
}

WeightDTypes DTypeArguments::weight_dtypes() const {
  WeightDTypes dtypes = parse_dtype(dtype);
  for (const std::string& text : kinds) {
    const std::size_t equals = text.find('=');
    const std::string name = equals == std::string::npos ? "" : text.substr(equals + 1);
    const std::vector<std::string> names = dtype_names();
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      throw UsageError(fmt::format("--kind: expected KIND=TYPE with a TYPE of {}, found {}",
                                   fmt::join(names, ", "), quote_text(text)));
    }
    try {
      dtypes.set(parse_layer_kind(text.substr(0, equals)), parse_dtype(name));
    } catch (const Error& error) {
      throw UsageError(fmt::format("--kind {}: {}", text, error.what()));
    }
  }
  return dtypes;
}

}  // namespace terrace::tools
