// SPDX-License-Identifier: Apache-2.0
#include "engine/weight_writer.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "engine/weight_file.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace terrace {
namespace {

using test::expect_error;
using test::TemporaryDirectory;

const std::map<std::string, std::string> kMetadata{{"config", "{}"}, {"name", "small \xc3\xa9"}};

std::vector<std::byte> pattern(std::size_t n, unsigned seed) {
  std::vector<std::byte> bytes(n);
  for (std::size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>((i * 131 + seed * 29 + 7) & 0x7fU);
  return bytes;
}

std::vector<TensorSpec> small_specs() {
  std::vector<TensorSpec> specs{{"a", StoredType::kF32, {3, 5}}, {"empty", StoredType::kF32, {0}}};
  for (const DType dtype : {DType::kBf16, DType::kQ8, DType::kQ4}) {
    for (TensorSpec& spec : weight_specs(std::string("w.") + dtype_name(dtype), dtype, {3, 64})) {
      specs.push_back(std::move(spec));
    }
  }
  specs.push_back({"tokenizer.data", StoredType::kU8, {77}});
  return specs;
}

std::uint64_t stored_bytes(const TensorSpec& spec) {
  std::uint64_t bytes = stored_type_bytes(spec.type);
  for (const std::uint64_t n : spec.shape) bytes *= n;
  return bytes;
}

void write_all(WeightWriter& writer, const std::vector<TensorSpec>& specs) {
  for (unsigned i = 0; i < specs.size(); ++i) writer.write(specs[i].name, pattern(stored_bytes(specs[i]), i));
}

TEST_CASE("What is written can be read: order, bytes, alignment, metadata, checksums") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("model");
  const auto specs = small_specs();
  WeightWriter writer(path, specs, kMetadata);
  write_all(writer, specs);
  CHECK_FALSE(std::filesystem::exists(path));
  writer.commit();
  CHECK(directory.names() == std::vector<std::string>{"model"});
  CHECK(std::filesystem::file_size(path) == writer.file_bytes());

  const WeightFile file = WeightFile::open(path);
  REQUIRE(file.tensors().size() == specs.size());
  std::uint64_t bytes = 0;
  for (unsigned i = 0; i < specs.size(); ++i) {
    const TensorInfo& tensor = file.get(specs[i].name);
    CAPTURE(tensor.name);
    CHECK(file.tensors()[i].name == specs[i].name);
    CHECK(tensor.type == specs[i].type);
    CHECK(tensor.shape == specs[i].shape);
    CHECK(tensor.offset % kTensorAlignment == 0);
    const auto expected = pattern(stored_bytes(specs[i]), i);
    REQUIRE(tensor.bytes == expected.size());
    CHECK(std::equal(expected.begin(), expected.end(), file.data(tensor).begin()));
    Checksum checksum;
    checksum.update(expected);
    CHECK(tensor.checksum == checksum.digest());
    bytes += tensor.bytes;
  }
  CHECK(writer.tensor_bytes() == bytes);
  for (const TensorInfo& padding : file.paddings()) {
    for (const std::byte byte : file.data(padding)) CHECK(byte == std::byte{0});
  }
  CHECK(*file.metadata("name") == "small \xc3\xa9");
  CHECK(file.weight("w.q4").cols == 64);
}

TEST_CASE("Pieces of any size, tensors in any order and in turns give the same file") {
  const TemporaryDirectory directory;
  const auto specs = small_specs();
  WeightWriter whole(directory.file("whole"), specs, kMetadata);
  write_all(whole, specs);
  whole.commit();

  WeightWriter pieces(directory.file("pieces"), specs, kMetadata);
  bool more = true;
  for (std::size_t at = 0; more; at += 7) {
    more = false;
    for (unsigned i = static_cast<unsigned>(specs.size()); i-- > 0;) {
      const auto bytes = pattern(stored_bytes(specs[i]), i);
      if (at >= bytes.size()) continue;
      pieces.write(specs[i].name, std::span(bytes).subspan(at, std::min<std::size_t>(7, bytes.size() - at)));
      more = true;
    }
  }
  pieces.commit();
  CHECK(test::read_all(directory.file("pieces")) == test::read_all(directory.file("whole")));
}

TEST_CASE("Without commit the target stays as it was and nothing is left behind") {
  const TemporaryDirectory directory;
  const std::string path = directory.write("model", std::as_bytes(std::span("precious")));
  {
    WeightWriter writer(path, small_specs(), kMetadata);
    writer.write("a", pattern(60, 0));
    CHECK(directory.names().size() == 2);
    expect_error(ErrorCode::kBadArgument, "tensor 'w.bf16' has 0 of 384 bytes", [&] { writer.commit(); });
  }
  CHECK(directory.names() == std::vector<std::string>{"model"});
  CHECK(test::read_all(path).size() == sizeof "precious");
}

TEST_CASE("A commit replaces an existing file, through a symbolic link as well") {
  const TemporaryDirectory directory;
  const std::string path = directory.write("model", std::as_bytes(std::span("old")));
  std::filesystem::create_directory(directory.path() / "links");
  const std::string link = directory.file("links/model");
  std::filesystem::create_symlink(path, link);
  const auto specs = small_specs();
  WeightWriter writer(link, specs, kMetadata);
  write_all(writer, specs);
  writer.commit();
  CHECK(std::filesystem::is_symlink(link));
  CHECK(WeightFile::open(path).tensors().size() == specs.size());
}

TEST_CASE("Targets that cannot be files are refused before anything is written") {
  const TemporaryDirectory directory;
  const auto open = [](const std::string& path) {
    return [path] { WeightWriter(path, small_specs(), kMetadata); };
  };
  const std::string here = directory.path().string();
  expect_error(ErrorCode::kIo, "cannot write '" + here + "': Is a directory", open(here));
  expect_error(ErrorCode::kIo, "Is a directory", open(here + "/new/"));
  expect_error(ErrorCode::kIo, "cannot create '" + here + "/no/model': No such file",
               open(here + "/no/model"));
  expect_error(ErrorCode::kIo, "it exists and is no regular file", open("/dev/null"));
  expect_error(ErrorCode::kIo, "File name too long", open(here + "/" + std::string(300, 'x')));
  expect_error(ErrorCode::kBadArgument, "name of the output file is empty", open(""));
  CHECK(directory.names().empty());
}

TEST_CASE("A plan that breaks a rule of the format is refused before a file exists") {
  const TemporaryDirectory directory;
  const auto plan = [&](std::vector<TensorSpec> specs,
                        std::map<std::string, std::string> metadata = kMetadata) {
    return [&directory, specs = std::move(specs), metadata = std::move(metadata)] {
      WeightWriter(directory.file("model"), specs, metadata);
    };
  };
  const auto bad = ErrorCode::kBadArgument;
  expect_error(bad, "tensor 'a' appears twice",
               plan({{"a", StoredType::kF32, {1}}, {"a", StoredType::kF32, {1}}}));
  expect_error(bad, "'a b' is no tensor name", plan({{"a b", StoredType::kF32, {1}}}));
  expect_error(bad, "'pad.7' is no tensor name", plan({{"pad.7", StoredType::kU8, {1}}}));
  expect_error(bad, "there is no 'q.scale'", plan({{"q", StoredType::kI8, {1}}}));
  expect_error(bad, "out of range",
               plan({{"a", StoredType::kF32, {std::uint64_t{1} << 32, std::uint64_t{1} << 32}}}));
  expect_error(bad, "metadata has no 'config'", plan({}, {}));
  expect_error(bad, "valid UTF-8", plan({}, {{"config", "\xff"}}));
  expect_error(bad, "rows of 96 cannot be q4", [] { weight_specs("w", DType::kQ4, {2, 96}); });
  expect_error(bad, "a scalar cannot be quantised", [] { weight_specs("w", DType::kQ8, {}); });
  CHECK(directory.names().empty());
}

TEST_CASE("Too many bytes and unknown tensors are refused, and the writer stays usable") {
  const TemporaryDirectory directory;
  const std::vector<TensorSpec> specs{{"a", StoredType::kF32, {4}}};
  WeightWriter writer(directory.file("model"), specs, kMetadata);
  writer.write("a", pattern(10, 0));
  expect_error(ErrorCode::kBadArgument, "7 more after 10 do not fit",
               [&] { writer.write("a", pattern(7, 0)); });
  expect_error(ErrorCode::kBadArgument, "tensor 'b' was not declared", [&] { writer.write("b", {}); });
  writer.write("a", pattern(6, 1));
  writer.commit();
  CHECK(WeightFile::open(directory.file("model")).get("a").checksum);
  expect_error(ErrorCode::kInternal, "after commit", [&] { writer.commit(); });
}

/// Runs `body` in a child process and returns what it wrote about itself, so that limits of the process can
/// be lowered.
template <class Body>
std::string in_child(Body&& body) {
  int pipe_ends[2];
  REQUIRE(::pipe(pipe_ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const std::string text = body();
    const auto written = ::write(pipe_ends[1], text.data(), text.size());
    ::_exit(written == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  ::close(pipe_ends[1]);
  std::string text;
  char buffer[256];
  for (ssize_t n = 0; (n = ::read(pipe_ends[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(n));
  ::close(pipe_ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  return text;
}

TEST_CASE("When there is no room the error says so at the start, and nothing is left behind") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("model");
  const std::string message = in_child([&]() -> std::string {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1 << 20, 1 << 20};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      WeightWriter(path, {{"a", StoredType::kF32, {1 << 20}}}, kMetadata);
    } catch (const Error& error) {
      return (error.code() == ErrorCode::kIo ? "kIo " : "? ") + std::string(error.what());
    }
    return "no error";
  });
  CAPTURE(message);
  CHECK(message.starts_with("kIo cannot reserve 419"));
  CHECK(message.ends_with("for '" + path + "': File too large"));
  CHECK(directory.names().empty());
}

TEST_CASE("When a write fails the error names the file and the reason, and nothing is left behind") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("model");
  const std::string message = in_child([&]() -> std::string {
    std::signal(SIGXFSZ, SIG_IGN);
    try {
      WeightWriter writer(path, {{"a", StoredType::kF32, {1 << 20}}}, kMetadata);
      const rlimit limit{1 << 20, 1 << 20};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      // The first write is a short one, up to the limit; the rest of it fails.
      writer.write("a", pattern(4 << 20, 0));
    } catch (const Error& error) {
      return (error.code() == ErrorCode::kIo ? "kIo " : "? ") + std::string(error.what());
    }
    return "no error";
  });
  CHECK(message == "kIo cannot write '" + path + "': File too large");
  CHECK(directory.names().empty());
}

}  // namespace
}  // namespace terrace
