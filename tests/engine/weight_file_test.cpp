// SPDX-License-Identifier: Apache-2.0
#include "engine/weight_file.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <set>

#include "tests/support/aligned_copy.h"
#include "tests/support/broken_model_files.h"
#include "tests/support/expect_error.h"
#include "tests/support/resident_bytes.h"
#include "tests/support/temporary_directory.h"

namespace terrace {
namespace {

using test::AlignedCopy;
using test::expect_error;

/// Touches everything that a parsed file offers, so that a sanitizer sees any view that reaches outside.
std::uint64_t read_everything(const WeightFile& file) {
  std::uint64_t sum = 0;
  const auto add = [&](const TensorInfo& tensor) {
    for (const std::byte byte : file.data(tensor)) sum += std::to_integer<std::uint64_t>(byte);
  };
  for (const TensorInfo& tensor : file.paddings()) add(tensor);
  for (const TensorInfo& tensor : file.tensors()) {
    add(tensor);
    if (!weight_dtype(tensor)) continue;
    const WeightView view = file.weight(tensor.name);
    for (std::size_t r = 0; r < view.rows && view.cols > 0; ++r) {
      sum += std::to_integer<std::uint64_t>(view.row(r)[row_bytes(view.dtype, view.cols) - 1]);
      if (view.scale != nullptr) sum += std::to_integer<std::uint64_t>(*view.row_scale(r));
    }
  }
  return sum;
}

TEST_CASE("A valid file shows its tensors in file order, by name, as bytes and as matrices") {
  const AlignedCopy bytes(test::valid_model_file());
  const WeightFile file = WeightFile::parse(bytes.bytes(), "valid");
  std::vector<std::string> names;
  for (const TensorInfo& tensor : file.tensors()) names.push_back(tensor.name);
  CHECK(names == std::vector<std::string>{"a", "n", "q", "q.scale", "g", "g.scale", "s", "e"});
  CHECK(file.paddings().size() == 4);
  CHECK(file.file_bytes() == bytes.bytes().size());

  const TensorInfo& a = file.get("a");
  CHECK(a.type == StoredType::kF32);
  CHECK(a.shape == std::vector<std::uint64_t>{4, 4});
  CHECK(a.bytes == 64);
  CHECK(a.offset % kTensorAlignment == 0);
  CHECK_FALSE(a.checksum);
  CHECK(file.data(a).size() == 64);
  CHECK(file.f32("a").size() == 16);

  const WeightView q = file.weight("q");
  CHECK(q.dtype == DType::kQ8);
  CHECK(q.rows == 2);
  CHECK(q.cols == 64);
  CHECK(q.scale == file.data(file.get("q.scale")).data());
  const WeightView g = file.weight("g");
  CHECK(g.dtype == DType::kQ4);
  CHECK(g.rows == 2);
  CHECK(g.cols == 64);
  CHECK(weight_shape(file.get("g")) == std::vector<std::uint64_t>{2, 64});
  CHECK(g.bytes() == 2 * (32 + 4));
  const WeightView s = file.weight("s");
  CHECK(s.rows == 1);
  CHECK(s.cols == 1);
  CHECK(file.weight("e").rows == 0);
  CHECK(file.weight("n").dtype == DType::kBf16);

  CHECK(file.find("z") == nullptr);
  CHECK(file.find("pad.0") == nullptr);
  expect_error(ErrorCode::kBadFile, "'valid': tensor 'z' is missing",
               [&] { static_cast<void>(file.get("z")); });
  expect_error(ErrorCode::kBadFile, "tensor 'n' has type BF16, expected F32",
               [&] { static_cast<void>(file.f32("n")); });
  REQUIRE(file.metadata("config") != nullptr);
  CHECK(*file.metadata("config") == "{}");
  CHECK(file.metadata("tokenizer") == nullptr);
  CHECK(file.mapping() == nullptr);
  read_everything(file);
}

TEST_CASE("A type without kernels is listed and refused only when it is used as a weight") {
  const AlignedCopy bytes(
      test::model_file(R"({"__metadata__":{"format":"terrace","format_version":"1","config":"{}"},)"
                       R"("i":{"dtype":"I64","shape":[8],"data_offsets":[0,64]},)"
                       R"("tokenizer.data":{"dtype":"U8","shape":[64],"data_offsets":[64,128]}})",
                       std::vector<std::byte>(128)));
  const WeightFile file = WeightFile::parse(bytes.bytes(), "f");
  CHECK(file.tensors().size() == 2);
  expect_error(ErrorCode::kUnsupported, "tensor 'i' has type I64",
               [&] { static_cast<void>(file.weight("i")); });
  expect_error(ErrorCode::kUnsupported, "tensor 'tokenizer.data' has type U8",
               [&] { static_cast<void>(file.weight("tokenizer.data")); });
}

TEST_CASE("The order of the header does not matter, and an empty tensor may lie anywhere") {
  const AlignedCopy bytes(
      test::model_file(R"({"z":{"data_offsets":[64,128],"shape":[16],"dtype":"F32"},)"
                       R"("e":{"dtype":"F32","shape":[0],"data_offsets":[64,64]},)"
                       R"("__metadata__":{"format":"terrace","format_version":"1","config":"{}"},)"
                       R"("a":{"dtype":"F32","shape":[16],"data_offsets":[0,64]}})",
                       std::vector<std::byte>(128)));
  const WeightFile file = WeightFile::parse(bytes.bytes(), "f");
  REQUIRE(file.tensors().size() == 3);
  CHECK(file.tensors()[0].name == "a");
  CHECK(file.tensors()[1].name == "e");
  CHECK(file.tensors()[2].name == "z");
}

TEST_CASE("Every broken file of the corpus is refused with the message that helps") {
  const std::vector<test::BrokenFile> corpus = test::broken_model_files();
  CHECK(corpus.size() >= 40);
  std::set<std::string> names;
  for (const test::BrokenFile& broken : corpus) {
    CAPTURE(broken.name);
    CHECK(names.insert(broken.name).second);
    const AlignedCopy bytes(broken.bytes);
    expect_error(ErrorCode::kBadFile, broken.message,
                 [&] { static_cast<void>(WeightFile::parse(bytes.bytes(), "broken")); });
  }
}

TEST_CASE("A message is short and printable whatever the file holds") {
  for (const test::BrokenFile& broken : test::broken_model_files()) {
    CAPTURE(broken.name);
    const AlignedCopy bytes(broken.bytes);
    try {
      static_cast<void>(WeightFile::parse(bytes.bytes(), "broken"));
    } catch (const Error& error) {
      const std::string message = error.what();
      CHECK(message.size() < 400);
      CHECK(message.starts_with("'broken': "));
      for (const char c : message) CHECK(static_cast<unsigned char>(c - 0x20) < 0x5f);
    }
  }
}

TEST_CASE("A file cut short at any byte is refused") {
  const std::vector<std::byte> valid = test::valid_model_file();
  for (std::size_t n = 0; n < valid.size(); ++n) {
    CAPTURE(n);
    const AlignedCopy bytes(std::span<const std::byte>(valid).first(n));
    CHECK_THROWS_AS(static_cast<void>(WeightFile::parse(bytes.bytes(), "cut")), Error);
  }
}

TEST_CASE("A flipped bit in the header is refused or leaves a file that can be read") {
  const std::vector<std::byte> valid = test::valid_model_file();
  const std::size_t header_bytes = valid.size() - 512;
  std::size_t n_refused = 0;
  for (std::size_t bit = 0; bit < 8 * header_bytes; ++bit) {
    std::vector<std::byte> flipped = valid;
    flipped[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    const AlignedCopy bytes(flipped);
    try {
      read_everything(WeightFile::parse(bytes.bytes(), "flipped"));
    } catch (const Error& error) {
      ++n_refused;
      CHECK(error.code() == ErrorCode::kBadFile);
    }
  }
  CHECK(n_refused > 4 * header_bytes);
}

TEST_CASE("Random damage to the header is refused or leaves a file that can be read") {
  const std::vector<std::byte> valid = test::valid_model_file();
  const std::size_t header_bytes = valid.size() - 512;
  std::uint64_t state = 1;
  const auto next = [&state] { return (state = state * 6364136223846793005U + 1442695040888963407U) >> 33; };
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::byte> damaged = valid;
    for (std::uint64_t i = 0; i <= next() % 4; ++i) {
      const std::size_t to = 8 + next() % (header_bytes - 8);
      const std::size_t from = 8 + next() % (header_bytes - 8);
      damaged[to] = valid[from];  // bytes of the header itself make damage that is likely to parse
    }
    const AlignedCopy bytes(damaged);
    try {
      read_everything(WeightFile::parse(bytes.bytes(), "damaged"));
    } catch (const Error&) {
    }
  }
}

TEST_CASE("A header of a hundred megabytes of brackets is refused at the first one, without deep recursion") {
  std::string text = R"({"a":)";
  text.resize(kMaxHeaderBytes - 100, '[');
  text.back() = '!';  // whoever gets there says that it is no JSON
  const AlignedCopy bytes(test::model_file(text, {}));
  expect_error(ErrorCode::kBadFile, "an array instead of the object",
               [&] { static_cast<void>(WeightFile::parse(bytes.bytes(), "brackets")); });
}

TEST_CASE("Memory that is not aligned is refused as an argument") {
  const AlignedCopy bytes(test::valid_model_file());
  expect_error(ErrorCode::kBadArgument, "must start at a multiple of 64",
               [&] { static_cast<void>(WeightFile::parse(bytes.bytes().subspan(1), "x")); });
}

TEST_CASE("A file is opened by path, and every message names it") {
  const test::TemporaryDirectory directory;
  const std::string path = directory.write("model", test::valid_model_file());
  WeightFile file = WeightFile::open(path);
  const WeightFile moved = std::move(file);
  CHECK(moved.label() == path);
  REQUIRE(moved.mapping() != nullptr);
  CHECK(moved.tensors().size() == 8);
  read_everything(moved);

  const std::string text = directory.write("text", std::as_bytes(std::span("no model at all, just text\n")));
  expect_error(ErrorCode::kBadFile, "'" + text + "': header:", [&] { WeightFile::open(text); });
  expect_error(ErrorCode::kIo, directory.file("nothing"),
               [&] { WeightFile::open(directory.file("nothing")); });
}

TEST_CASE("Opening a model file of 30 GB reads only its header") {
  const test::TemporaryDirectory directory;
  constexpr std::uint64_t kTensors = 3000;
  constexpr std::uint64_t kBytes = 10U << 20;
  std::string header = R"({"__metadata__":{"format":"terrace","format_version":"1","config":"{}"})";
  for (std::uint64_t i = 0; i < kTensors; ++i) {
    header += ",\"decoder.blocks." + std::to_string(i) + R"(.ff.units":{"dtype":"BF16","shape":[)" +
              std::to_string(kBytes / 2) + R"(],"data_offsets":[)" + std::to_string(i * kBytes) + "," +
              std::to_string((i + 1) * kBytes) + "]}";
  }
  const auto start_bytes = test::model_file(header + "}", {});
  const std::string path = directory.write("model", start_bytes);
  std::error_code error;
  std::filesystem::resize_file(path, start_bytes.size() + kTensors * kBytes, error);
  if (error) {
    MESSAGE("skipped: the file system has no sparse files of that size");
    return;
  }
  const WeightFile file = WeightFile::open(path);
  CHECK(file.tensors().size() == kTensors);
  CHECK(file.weight("decoder.blocks.2999.ff.units").cols == kBytes / 2);
  REQUIRE(file.mapping() != nullptr);
  CHECK(test::resident_bytes(file.mapping()->bytes()) <= test::kMostReadAhead);
}

}  // namespace
}  // namespace terrace
