// SPDX-License-Identifier: Apache-2.0
#include "bench/random_model.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "engine/error.h"
#include "models/init.h"

namespace terrace::bench {

std::string temporary_file(const std::string& name) {
  std::string path = std::filesystem::temp_directory_path() / (name + ".XXXXXX");
  const int descriptor = ::mkstemp(path.data());
  TERRACE_CHECK(descriptor >= 0, kIo, "cannot make '" + path + "'");
  ::close(descriptor);
  return path;
}

std::shared_ptr<const Model> random_model(const ModelConfig& config, DType dtype) {
  const std::string path = temporary_file("terrace_bench");
  InitOptions options;
  options.dtype = dtype;
  init_model(config, path, options);
  auto model = Model::load(path);
  std::filesystem::remove(path);
  return model;
}

std::vector<TokenId> random_tokens(const Model& model, std::size_t first, std::size_t n) {
  std::vector<TokenId> ids(n);
  for (std::size_t i = 0; i < n; ++i) {
    ids[i] = static_cast<TokenId>((first + i + 1) * 2654435761U % model.config().vocab_size);
  }
  return ids;
}

}  // namespace terrace::bench
