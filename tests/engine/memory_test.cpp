// SPDX-License-Identifier: Apache-2.0
#include "engine/memory.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <utility>

#include "tests/support/expect_error.h"

namespace terrace::test {
namespace {

bool is_aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % kCacheLine == 0; }

TEST_CASE("VirtualBuffer: zeros, page aligned, larger than what is touched") {
  const VirtualBuffer buffer(std::size_t{1} << 36, "a test");  // 64 GiB reserved, one page used
  const auto floats = buffer.as<float>();
  CHECK(floats.size() == buffer.bytes() / sizeof(float));
  CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % 4096 == 0);
  CHECK(floats.back() == 0.0F);
  floats.back() = 1.0F;
  CHECK(floats.back() == 1.0F);
}

TEST_CASE("VirtualBuffer: committed memory is zero and can be written, wherever it begins and ends") {
  constexpr std::size_t kBytes = std::size_t{5} << 20;
  for (const std::size_t huge_from : {std::size_t{0}, std::size_t{100}, kBytes, 2 * kBytes}) {
    const VirtualBuffer buffer(kBytes, "a test", huge_from);
    for (const std::size_t begin : {std::size_t{0}, std::size_t{1}, std::size_t{4095}, kBytes - 10}) {
      buffer.commit(begin, 10000);  // behind the end, too
      CHECK(buffer.data()[begin] == std::byte{0});
      buffer.data()[begin] = std::byte{1};
      buffer.commit(begin, 10);
      CHECK(buffer.data()[begin] == std::byte{1});
      buffer.data()[begin] = std::byte{0};
    }
  }
}

TEST_CASE("VirtualBuffer: nothing reserved for zero bytes; moving hands the memory over") {
  CHECK(VirtualBuffer(0, "nothing").data() == nullptr);
  VirtualBuffer a(100, "a");
  std::byte* const data = a.data();
  VirtualBuffer b(std::move(a));
  CHECK(a.data() ==
        nullptr);  // NOLINT(bugprone-use-after-move): the state after a move is part of the contract
  CHECK(b.data() == data);
  VirtualBuffer c(200, "c");
  c = std::move(b);
  CHECK(c.data() == data);
  CHECK(c.bytes() == 100);
}

TEST_CASE("VirtualBuffer: what cannot be reserved is an error that names the purpose") {
  expect_error(ErrorCode::kOutOfMemory, "for the impossible",
               [] { VirtualBuffer buffer(std::size_t{1} << 62, "the impossible"); });
}

TEST_CASE("Workspace: aligned blocks that do not overlap, given back by scopes") {
  Workspace ws(4096);
  auto* const first = ws.take<float>(3);
  float* inner = nullptr;
  {
    const Workspace::Scope scope(ws);
    inner = ws.take<float>(16);
    CHECK(is_aligned(first));
    CHECK(is_aligned(inner));
    CHECK(inner - first == 16);
    ws.take<char>(1);
  }
  CHECK(ws.take<char>(1) == static_cast<void*>(inner));
  CHECK(ws.high_water_bytes() == 64 + 64 + 64);
  CHECK(is_aligned(ws.take<char>(0)));
}

TEST_CASE("Workspace: exhaustion is an error, and nothing is taken") {
  Workspace ws(1024);
  ws.take<char>(512);
  expect_error(ErrorCode::kInternal, "513 bytes asked for, 512 of 1024 left", [&] { ws.take<char>(513); });
  expect_error(ErrorCode::kInternal, "workspace exhausted",
               [&] { ws.take<char>(std::numeric_limits<std::size_t>::max()); });
  CHECK(ws.take<char>(512) != nullptr);
  expect_error(ErrorCode::kInternal, "workspace exhausted", [&] { ws.take<char>(1); });
  expect_error(ErrorCode::kInternal, "workspace exhausted", [] { Workspace().take<char>(1); });
}

}  // namespace
}  // namespace terrace::test
