// SPDX-License-Identifier: Apache-2.0
// State files. Layout, little-endian: magic, version, model fingerprint, sizes, document, tokens, widths and
// their history, last hidden row, snapshots, caches; at the end the XXH3-64 of everything before it.
#include <fmt/format.h>

#include <algorithm>

#include "engine/atomic_file.h"
#include "engine/checksum.h"
#include "engine/error.h"
#include "engine/mapped_file.h"
#include "models/session_impl.h"
#include "models/widths.h"

namespace terrace {
namespace {

constexpr std::uint64_t kMagic = 0x5453454341525254;  // "TRRACEST"
constexpr std::uint64_t kVersion = 4;
constexpr std::uint64_t kMaxStateTokens = std::uint64_t{1} << 28;

class CountingSink final : public ByteSink {
 public:
  void write(std::span<const std::byte> bytes) override { size_ += bytes.size(); }
  std::uint64_t size() const noexcept { return size_; }

 private:
  std::uint64_t size_ = 0;
};

/// The start of every state file, up to how it keeps keys and values.
struct Header {
  std::uint64_t fingerprint;
  KvType kv_type;
};

void expect_signature(ByteSource& source) {
  std::uint64_t found = 0;
  read_array(source, &found, 1);
  TERRACE_CHECK(found == kMagic, kBadFile, "no state file (its first 8 bytes are not those of one)");
}

Header read_header(ByteSource& source) {
  expect_signature(source);
  expect_u64(source, kVersion, "the state format's version");
  Header header{};
  read_array(source, &header.fingerprint, 1);
  header.kv_type = kKvTypes[read_u64(source, std::size(kKvTypes) - 1, "the type of the K/V cache")];
  return header;
}

/// Calls fn, whose errors then name the file.
template <class F>
auto with_path(const std::string& path, F&& fn) {
  try {
    return fn();
  } catch (const Error& e) {
    throw Error(e.code(), path + ": " + e.what());
  }
}

class FileSink final : public ByteSink {
 public:
  explicit FileSink(AtomicFile& file) : file_(file) {}
  void write(std::span<const std::byte> bytes) override {
    file_.write_at(offset_, bytes);
    checksum_.update(bytes);
    offset_ += bytes.size();
  }
  void write_checksum() { write_u64(*this, checksum_.digest()); }

 private:
  AtomicFile& file_;
  Checksum checksum_;
  std::uint64_t offset_ = 0;
};

}  // namespace

void Session::Impl::save(ByteSink& sink) const {
  write_u64(sink, kMagic);
  write_u64(sink, kVersion);
  write_u64(sink, model->fingerprint());
  write_u64(sink, static_cast<std::uint64_t>(options.kv_type));
  write_u64(sink, document_length);
  write_u64(sink, encoder_rows);
  write_u64(sink, tokens.size());
  write_array(sink, tokens.data(), tokens.size());
  write_array(sink, widths.data(), widths.size());
  width_history.save(sink);
  write_array(sink, hidden.data(), hidden.size());
  write_array(sink, logits.data(), logits.size());
  snapshots.save(sink, n_snapshots(tokens.size()));
  state.save(sink);
  for (const KvCache& cache : cross) cache.save(sink);
}

void Session::Impl::load(ByteSource& source) {
  const Header header = read_header(source);
  TERRACE_CHECK(header.fingerprint == model->fingerprint(), kBadArgument,
                "the state was saved with another model; load the model it belongs to");
  TERRACE_CHECK(header.kv_type == options.kv_type, kBadArgument,
                fmt::format("the state was saved with keys and values in {}, this session keeps them in {}",
                            kv_type_name(header.kv_type), kv_type_name(options.kv_type)));
  document_length = read_u64(source, options.max_encoder_tokens, "the document's length");
  encoder_rows = read_u64(source, document_length, "the document's rows in the cache");
  const std::uint64_t n = read_u64(source, kMaxStateTokens, "the number of tokens");
  TERRACE_CHECK(
      n <= options.max_context, kContextFull,
      fmt::format("the state holds {} tokens; this session's context takes {}", n, options.max_context));
  tokens.resize(n);
  read_array(source, tokens.data(), tokens.size());
  const auto vocabulary = static_cast<TokenId>(model->config().vocab_size);
  TERRACE_CHECK(
      std::all_of(tokens.begin(), tokens.end(), [&](TokenId t) { return t >= 0 && t < vocabulary; }),
      kBadFile, "state: a token lies outside the vocabulary");
  read_array(source, widths.data(), widths.size());
  const std::span<const Block> blocks = network().decoder().blocks();
  const auto check_widths = [&](std::size_t, std::size_t, std::span<const std::uint32_t> found) {
    for (std::size_t i = 0; i < found.size(); ++i) {
      const auto d_ff = static_cast<std::uint32_t>(blocks[i].ff().d_ff());
      TERRACE_CHECK(takes_width(model->config().decoder.ff, d_ff, found[i]), kBadFile,
                    fmt::format("state: width {} of block {} is impossible", found[i], i));
    }
  };
  check_widths(0, n, widths);
  width_history.load(source, n);
  width_history.for_runs(0, n, check_widths);
  read_array(source, hidden.data(), hidden.size());
  read_array(source, logits.data(), logits.size());
  has_logits = true;
  snapshots.load(source, n_snapshots(tokens.size()));
  state.load(source, encoder_rows + n);
  for (KvCache& cache : cross) {
    cache.load(source);
    TERRACE_CHECK(
        cache.length() == document_length, kBadFile,
        fmt::format("state: the document has {} tokens but {} keys", document_length, cache.length()));
  }
}

void Session::save(const std::string& path) const {
  impl_->logits_of_last();
  if (impl_->tokens.empty()) {  // equal states give equal files: nothing is left of a token that is no more
    std::fill(impl_->hidden.begin(), impl_->hidden.end(), 0.0F);
    std::fill(impl_->logits.begin(), impl_->logits.end(), 0.0F);
  }
  CountingSink size;
  impl_->save(size);
  AtomicFile file(path, size.size() + sizeof(std::uint64_t));
  FileSink sink(file);
  impl_->save(sink);
  sink.write_checksum();
  file.commit();
}

KvType Session::saved_kv_type(const std::string& path) {
  const MappedFile file = MappedFile::open(path);
  return with_path(path, [&] {
    MemorySource source(file.bytes());
    return read_header(source).kv_type;
  });
}

void Session::load(const std::string& path) {
  const MappedFile file = MappedFile::open(path);
  const std::span<const std::byte> bytes = file.bytes();
  with_path(path, [&] {
    TERRACE_CHECK(bytes.size() >= 2 * sizeof(std::uint64_t), kBadFile, "too short to be a state file");
    MemorySource start(bytes);
    expect_signature(start);
    const std::span<const std::byte> body = bytes.first(bytes.size() - sizeof(std::uint64_t));
    Checksum checksum;
    checksum.update(body);
    MemorySource end(bytes.subspan(body.size()));
    expect_u64(end, checksum.digest(), "the checksum");
    auto loaded = impl_->without_caches(*impl_->runtime);
    loaded->reserve_caches();
    MemorySource source(body);
    loaded->load(source);
    TERRACE_CHECK(source.left() == 0, kBadFile, fmt::format("state: {} bytes too many", source.left()));
    loaded->profile = impl_->profile;
    loaded->observer = impl_->observer;
    impl_ = std::move(loaded);
  });
}

}  // namespace terrace
