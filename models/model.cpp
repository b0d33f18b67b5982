// SPDX-License-Identifier: Apache-2.0
#include "models/model.h"

#include "engine/checksum.h"
#include "engine/error.h"
#include "engine/paging.h"
#include "models/network.h"
#include "models/weight_binder.h"

namespace terrace {
namespace {

ModelConfig config_of(const WeightFile& file) {
  const std::string* text = file.metadata("config");
  TERRACE_CHECK(text, kBadFile, file.label() + ": no 'config' in the metadata; this is no model file");
  try {
    return parse_config(*text);
  } catch (const Error& e) {
    throw Error(e.code(), file.label() + ": " + e.what());
  }
}

std::unique_ptr<Tokenizer> tokenizer_of(const WeightFile& file, std::uint32_t vocab_size) {
  const std::string* text = file.metadata("tokenizer");
  const TensorInfo* data = file.find(kTokenizerData);
  try {
    auto tokenizer = make_tokenizer(text ? *text : R"({"kind": "none"})",
                                    data ? file.data(*data) : std::span<const std::byte>{});
    check_vocabulary(*tokenizer, vocab_size, ErrorCode::kBadFile);
    return tokenizer;
  } catch (const Error& e) {
    throw Error(e.code(), file.label() + ": tokenizer: " + e.what());
  }
}

std::uint64_t fingerprint_of(const WeightFile& file) {
  Checksum sum;
  for (const char* key : {"config", "checksums"}) {
    if (const std::string* text = file.metadata(key)) sum.update(std::as_bytes(std::span(*text)));
  }
  return sum.digest();
}

}  // namespace

std::shared_ptr<const Model> Model::load(const std::string& path, const LoadOptions& options) {
  return from_file(WeightFile::open(path), options);
}

std::shared_ptr<const Model> Model::from_file(WeightFile file, const LoadOptions& options) {
  return std::shared_ptr<const Model>(new Model(std::move(file), options));
}

Model::Model(WeightFile file, const LoadOptions& options)
    : file_(std::move(file)),
      isa_(options.isa),
      rows_on_demand_(options.rows_on_demand.value_or(file_.file_bytes() > available_memory_bytes())),
      config_(config_of(file_)),
      tokenizer_(tokenizer_of(file_, config_.vocab_size)) {
  WeightBinder binder(file_, rows_on_demand_);
  if (file_.find(kTokenizerData)) binder.ignore(std::string(kTokenizerData));
  network_ = std::make_unique<Network>(config_, binder, isa_);
  binder.finish();
  fingerprint_ = fingerprint_of(file_);
}

Model::~Model() = default;

}  // namespace terrace
