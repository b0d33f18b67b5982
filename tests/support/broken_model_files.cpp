// SPDX-License-Identifier: Apache-2.0
#include "tests/support/broken_model_files.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <stdexcept>

#include "engine/weight_header.h"

namespace terrace::test {
namespace {

constexpr std::string_view kMetadata =
    R"("__metadata__":{"config":"{}","format":"terrace","format_version":"1"})";

// 0 a F32 | 64 n BF16 (12 bytes) | 76 padding | 128 q, 256 its scale | 264 padding | 320 g, 384 its scale |
// 392 padding | 448 scalar | 452 padding | 512 empty
constexpr std::string_view kTensors = R"("a":{"dtype":"F32","shape":[4,4],"data_offsets":[0,64]},)"
                                      R"("n":{"dtype":"BF16","shape":[6],"data_offsets":[64,76]},)"
                                      R"("pad.0":{"dtype":"U8","shape":[52],"data_offsets":[76,128]},)"
                                      R"("q":{"dtype":"I8","shape":[2,64],"data_offsets":[128,256]},)"
                                      R"("q.scale":{"dtype":"F32","shape":[2],"data_offsets":[256,264]},)"
                                      R"("pad.1":{"dtype":"U8","shape":[56],"data_offsets":[264,320]},)"
                                      R"("g":{"dtype":"U8","shape":[2,32],"data_offsets":[320,384]},)"
                                      R"("g.scale":{"dtype":"BF16","shape":[2,2],"data_offsets":[384,392]},)"
                                      R"("pad.2":{"dtype":"U8","shape":[56],"data_offsets":[392,448]},)"
                                      R"("s":{"dtype":"F32","shape":[],"data_offsets":[448,452]},)"
                                      R"("pad.3":{"dtype":"U8","shape":[60],"data_offsets":[452,512]},)"
                                      R"("e":{"dtype":"F32","shape":[0,3],"data_offsets":[512,512]})";
constexpr std::size_t kDataBytes = 512;

std::string valid_header() { return "{" + std::string(kMetadata) + "," + std::string(kTensors) + "}"; }

std::vector<std::byte> zeros(std::size_t n) { return std::vector<std::byte>(n); }

/// `text` with its only occurrence of `from` replaced.
std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  if (at == std::string::npos || text.find(from, at + 1) != std::string::npos) {
    throw std::logic_error("not exactly once in the header: " + std::string(from));
  }
  return text.replace(at, from.size(), to);
}

void set_length(std::vector<std::byte>& file, std::uint64_t length) {
  for (std::size_t i = 0; i < kHeaderLengthBytes; ++i) file[i] = static_cast<std::byte>(length >> (8 * i));
}

class Corpus {
 public:
  /// The valid file with one edit of its header.
  void edit(const std::string& name, std::string_view from, std::string_view to, const std::string& message) {
    header(name, replaced(valid_header(), from, to), message);
  }
  /// Any header in front of valid data.
  void header(const std::string& name, const std::string& text, const std::string& message) {
    file(name, model_file(text, zeros(kDataBytes)), message);
  }
  /// Metadata only: `text` stands after the three obligatory keys.
  void metadata(const std::string& name, const std::string& text, const std::string& message) {
    edit(name, R"("format_version":"1")", R"("format_version":"1",)" + text, message);
  }
  /// One tensor only, of this entry.
  void tensor(const std::string& name, const std::string& entry, std::size_t data_bytes,
              const std::string& message) {
    file(name, model_file("{" + std::string(kMetadata) + "," + entry + "}", zeros(data_bytes)), message);
  }
  void file(const std::string& name, std::vector<std::byte> bytes, const std::string& message) {
    files_.push_back({name, std::move(bytes), message});
  }
  std::vector<BrokenFile> take() && { return std::move(files_); }

 private:
  std::vector<BrokenFile> files_;
};

void add_lengths(Corpus& corpus) {
  const std::vector<std::byte> valid = valid_model_file();
  corpus.file("three bytes", {valid.begin(), valid.begin() + 3},
              "length of the header: expected 8 bytes, found 3");
  corpus.file("length only", {valid.begin(), valid.begin() + 8}, "does not fit into a file of 8 bytes");
  auto bytes = valid;
  set_length(bytes, 0);
  corpus.file("length zero", bytes, "does not end at a multiple of 64");
  set_length(bytes, 56);
  corpus.file("length ends inside the JSON", bytes, "not valid JSON");
  set_length(bytes, kMaxHeaderBytes + 1);
  corpus.file("length just over the limit", bytes, "exceeds the limit of 100000000 bytes");
  set_length(bytes, ~std::uint64_t{0});
  corpus.file("length of all ones", bytes, "exceeds the limit");
  set_length(bytes, ~std::uint64_t{0} - 7);
  corpus.file("length that wraps when eight is added", bytes, "exceeds the limit");
  set_length(bytes, (std::uint64_t{1} << 63) | 120);
  corpus.file("length with the sign bit", bytes, "exceeds the limit");
  set_length(bytes, 64 * 1000 - 8);
  corpus.file("length past the end of the file", bytes, "does not fit into a file of");
  set_length(bytes, 57);
  corpus.file("length that misaligns the data", bytes, "does not end at a multiple of 64");
  corpus.file("last byte missing", {valid.begin(), valid.end() - 1}, "cut short?");
  bytes = valid;
  bytes.push_back({});
  corpus.file("one byte too many", bytes, "tensors end at byte 512 of the data, the file holds 513 bytes");
  corpus.file("zeros", zeros(4096), "does not end at a multiple of 64");
  using std::string_view_literals::operator""sv;
  const std::string_view gguf = "GGUF\x03\0\0\0\0\0\0\0\0\0\0\0"sv;
  const auto gguf_bytes = std::as_bytes(std::span(gguf));
  corpus.file("another format", {gguf_bytes.begin(), gguf_bytes.end()}, "exceeds the limit");
}

void add_json(Corpus& corpus) {
  corpus.header("text instead of JSON", "hello", "does not start with '{'");
  corpus.header("space before the JSON", " " + valid_header(), "does not start with '{'");
  corpus.header("byte order mark", "\xef\xbb\xbf" + valid_header(), "does not start with '{'");
  corpus.header("array", "[]", "does not start with '{'");
  corpus.header("open object", "{", "not valid JSON at byte");
  corpus.header("two documents", valid_header() + "{}", "not valid JSON at byte");
  corpus.header("zero byte after the JSON", valid_header() + std::string(1, '\0'), "not valid JSON at byte");
  corpus.header("trailing comma", "{" + std::string(kMetadata) + ",}", "not valid JSON at byte");
  corpus.header("comment", "{/* no */" + std::string(kMetadata) + "}", "not valid JSON at byte");
  corpus.edit("broken UTF-8", R"("config":"{}")", "\"config\":\"\xc3\x28\"", "not valid JSON at byte");
  corpus.edit("lone surrogate", R"("config":"{}")", R"("config":"\ud800")", "not valid JSON at byte");
  corpus.header("a million open arrays", "{\"a\":" + std::string(1'000'000, '['),
                "an array instead of the object");
  corpus.header(
      "a million open objects",
      [] {
        std::string text;
        for (int i = 0; i < 1'000'000; ++i) text += "{\"a\":";
        return text;
      }(),
      "unknown key 'a'");
  corpus.header("open arrays in a shape", R"({"a":{"dtype":"F32","shape":)" + std::string(100'000, '['),
                "an array in shape");
  corpus.header("number as tensor", R"({"a":1})", "a number instead of the object");
  corpus.header("null as metadata", R"({"__metadata__":null})", "null instead of the object of __metadata__");
}

void add_metadata(Corpus& corpus) {
  corpus.header("no metadata", "{" + std::string(kTensors) + "}", "metadata has no 'format'");
  corpus.edit("foreign format", R"("format":"terrace")", R"("format":"pt")", "metadata 'format' is 'pt'");
  corpus.edit("newer version", R"("format_version":"1")", R"("format_version":"2")",
              "metadata 'format_version' is '2', this build reads '1'");
  corpus.edit("no version", R"(,"format_version":"1")", "", "metadata 'format_version' is missing");
  corpus.edit("no configuration", R"("config":"{}",)", "", "metadata has no 'config'");
  corpus.metadata("number in metadata", R"("x":1)",
                  "a number as value of __metadata__ key 'x', expected a string");
  corpus.metadata("object in metadata", R"("x":{})", "an object");
  corpus.metadata("array in metadata", R"("x":[])", "an array");
  corpus.metadata("metadata key twice", R"("format":"terrace")",
                  "key 'format' appears twice in __metadata__");
  corpus.header("metadata twice", "{" + std::string(kMetadata) + "," + std::string(kMetadata) + "}",
                "__metadata__ appears twice");
  corpus.metadata("checksums that are no JSON", R"("checksums":"x")",
                  "metadata 'checksums': not valid JSON at byte 1");
  corpus.metadata("checksums that are a list", R"("checksums":"[]")",
                  "metadata 'checksums': expected a JSON object");
  corpus.metadata("short checksum", R"("checksums":"{\"a\":\"123\"}")",
                  "value of 'a' is not 16 lower-case hex digits");
  corpus.metadata("checksum that is a number", R"("checksums":"{\"a\":1}")",
                  "is not 16 lower-case hex digits");
  corpus.metadata("checksum of nothing", R"("checksums":"{\"z\":\"0123456789abcdef\"}")",
                  "there is no tensor 'z'");
  corpus.metadata("checksum twice",
                  R"("checksums":"{\"a\":\"0123456789abcdef\",\"a\":\"0123456789abcdef\"}")",
                  "key 'a' appears twice");
  corpus.metadata("zero byte in checksums", R"("checksums":"{}\u0000[")",
                  "metadata 'checksums': not valid JSON at byte 3");
  corpus.metadata("checksums nested deeply", "\"checksums\":\"" + std::string(100'000, '[') + "\"",
                  "nested deeper than 32 levels");
}

void add_entries(Corpus& corpus) {
  corpus.edit("tensor twice", R"("s":{)", R"("a":{)", "tensor 'a' appears twice");
  corpus.edit("empty name", R"("s":{)", R"("":{)", "'' is no tensor name");
  corpus.edit("name with a slash", R"("s":{)", R"("../s":{)", "is no tensor name");
  corpus.edit("name with a zero byte", R"("s":{)", R"("s\u0000":{)", "'s\\x00' is no tensor name");
  corpus.edit("name of a terminal sequence", R"("s":{)", R"("\u001b[2J":{)", "'\\x1b[2J' is no tensor name");
  corpus.edit("very long name", R"("s":{)", "\"" + std::string(100'000, 's') + "\":{",
              "...' is no tensor name");
  corpus.edit("unknown dtype", R"("dtype":"F32","shape":[4,4])", R"("dtype":"F33","shape":[4,4])",
              "tensor 'a': unknown dtype 'F33'");
  corpus.edit("dtype in lower case", R"("dtype":"F32","shape":[4,4])", R"("dtype":"f32","shape":[4,4])",
              "tensor 'a': unknown dtype 'f32'");
  corpus.edit("dtype as number", R"("dtype":"F32","shape":[4,4])", R"("dtype":1,"shape":[4,4])",
              "a number in dtype");
  corpus.edit("no dtype", R"("dtype":"F32","shape":[4,4],)", R"("shape":[4,4],)",
              "tensor 'a': needs dtype, shape and data_offsets");
  corpus.edit("no offsets", R"(,"data_offsets":[0,64])", "",
              "tensor 'a': needs dtype, shape and data_offsets");
  corpus.edit("shape twice", R"("shape":[4,4])", R"("shape":[4,4],"shape":[4,4])",
              "tensor 'a': shape appears twice");
  corpus.edit("unknown field", R"("shape":[4,4])", R"("shape":[4,4],"stride":[1])",
              "tensor 'a': unknown key 'stride'");
  corpus.edit("string as shape", R"("shape":[4,4])", R"("shape":"4,4")", "tensor 'a': a string in shape");
  corpus.edit("negative size", R"("shape":[4,4])", R"("shape":[-4,-4])",
              "tensor 'a': a negative number in shape");
  corpus.edit("fraction as size", R"("shape":[4,4])", R"("shape":[4.0,4])", "a number that is no integer");
  corpus.edit("size past 64 bits", R"("shape":[4,4])", R"("shape":[18446744073709551616,4])",
              "a number that is no integer of at most 64 bits");
  corpus.edit("size past any float", R"("shape":[4,4])", R"("shape":[1e999,4])", "not valid JSON at byte");
  corpus.edit("nine axes", R"("shape":[4,4])", R"("shape":[4,4,1,1,1,1,1,1,1])", "more than 8 dimensions");
  corpus.edit("one offset", R"("data_offsets":[0,64])", R"("data_offsets":[64])",
              "needs exactly two numbers");
  corpus.edit("three offsets", R"("data_offsets":[0,64])", R"("data_offsets":[0,64,64])",
              "needs exactly two numbers");
  corpus.edit("negative offset", R"("data_offsets":[0,64])", R"("data_offsets":[-64,0])",
              "a negative number in data_offsets");
}

void add_sizes(Corpus& corpus) {
  corpus.edit("size that disagrees", R"("shape":[4,4])", R"("shape":[4,5])",
              "tensor 'a': F32 [4, 5] needs 80 bytes, data_offsets hold 64");
  corpus.edit("offsets reversed", R"("data_offsets":[0,64])", R"("data_offsets":[64,0])",
              "data_offsets end at 0, before they begin at 64");
  corpus.edit("elements wrap to the right number", R"("shape":[4,4])",
              R"("shape":[9223372036854775809,16,2])",
              "tensor 'a': number of elements: 9223372036854775809 * 16 * 2 is out of range");
  corpus.edit("bytes wrap to the right number", R"("shape":[4,4])", R"("shape":[4611686018427387920])",
              "tensor 'a': size in bytes: 4611686018427387920 * 4 is out of range");
  corpus.edit("a zero hides an overflow", R"("shape":[0,3])", R"("shape":[4294967296,4294967296,0])",
              "tensor 'e': number of elements");
  corpus.edit("maximal signed size", R"("shape":[4,4])", R"("shape":[9223372036854775807,2,1,1])",
              "is out of range");
  corpus.edit("overlap", R"("data_offsets":[128,256])", R"("data_offsets":[64,192])",
              "inside the tensor before it");
  corpus.edit("hole", R"("pad.0":{"dtype":"U8","shape":[52],"data_offsets":[76,128]},)", "",
              "tensor 'q': data_offsets begin at 128, a hole; expected 76");
  corpus.tensor("first tensor not at zero", R"("a":{"dtype":"F32","shape":[16],"data_offsets":[64,128]})",
                128, "tensor 'a': data_offsets begin at 64, a hole; expected 0");
  corpus.tensor("tensor far past the end",
                R"("a":{"dtype":"F32","shape":[16777216],"data_offsets":[0,67108864]})", 64,
                "tensor 'a': data_offsets end at 67108864, the file holds 64 bytes of data");
  corpus.tensor(
      "offset near the end of 64 bits",
      R"("a":{"dtype":"U8","shape":[15],"data_offsets":[18446744073709551600,18446744073709551615]})", 64,
      "a hole; expected 0");
  corpus.tensor("no tensors but data", R"("a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]})", 64,
                "tensors end at byte 0 of the data, the file holds 64 bytes");
  corpus.tensor(
      "misaligned tensor",
      R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]})",
      8, "tensor 'b': starts at byte");
  corpus.edit("long padding", R"("pad.0":{"dtype":"U8","shape":[52],"data_offsets":[76,128]},)",
              R"("pad.0":{"dtype":"U8","shape":[4,13],"data_offsets":[76,128]},)",
              "tensor 'pad.0': a padding is");
  corpus.edit("padding without a number", R"("pad.0")", R"("pad.x")", "tensor 'pad.x': a padding is");
}

void add_scales(Corpus& corpus) {
  corpus.edit("int8 without scale", R"("q.scale")", R"("q.scales")",
              "tensor 'q': quantised (I8), but there is no 'q.scale'");
  corpus.edit("int4 without scale", R"("g.scale")", R"("h")",
              "tensor 'g': quantised (U8), but there is no 'g.scale'");
  corpus.edit("int8 scale of another dtype", R"("dtype":"F32","shape":[2],)",
              R"("dtype":"BF16","shape":[4],)", "tensor 'q.scale': expected F32 [2], found BF16 [4]");
  corpus.edit("int4 scale of another shape", R"("shape":[2,2])", R"("shape":[4])",
              "tensor 'g.scale': expected BF16 [2, 2], found BF16 [4]");
  corpus.edit("int4 row of the wrong length", R"("shape":[2,32])", R"("shape":[4,16])",
              "tensor 'g': a q4 row has 16 bytes, expected a multiple of 32");
  corpus.edit("scale of a float weight", R"("s":{)", R"("a.scale":{)",
              "tensor 'a.scale': a scale for tensor 'a', which is F32 and has none");
  corpus.tensor(
      "quantised scalar",
      R"("a":{"dtype":"I8","shape":[],"data_offsets":[0,1]},"pad.0":{"dtype":"U8","shape":[63],"data_offsets":[1,64]})",
      64, "tensor 'a': a quantised weight needs at least one axis");
}

}  // namespace

std::vector<std::byte> model_file(std::string_view header, const std::vector<std::byte>& data) {
  const std::size_t used = kHeaderLengthBytes + header.size();
  const std::size_t begin = (used + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
  std::vector<std::byte> file(begin, std::byte{' '});
  set_length(file, begin - kHeaderLengthBytes);
  const auto text = std::as_bytes(std::span(header));
  std::copy(text.begin(), text.end(), file.begin() + kHeaderLengthBytes);
  file.insert(file.end(), data.begin(), data.end());
  return file;
}

std::vector<std::byte> valid_model_file() { return model_file(valid_header(), zeros(kDataBytes)); }

std::vector<BrokenFile> broken_model_files() {
  Corpus corpus;
  add_lengths(corpus);
  add_json(corpus);
  add_metadata(corpus);
  add_entries(corpus);
  add_sizes(corpus);
  add_scales(corpus);
  return std::move(corpus).take();
}

}  // namespace terrace::test
