// SPDX-License-Identifier: Apache-2.0
#include "engine/partial_files.h"

#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstring>
#include <mutex>

namespace terrace {
namespace {

/// A name that a handler may read at any moment: it is complete while `in_use` is set.
struct Slot {
  std::atomic<bool> in_use;
  char path[1024];
};
static_assert(std::atomic<bool>::is_always_lock_free);

Slot g_slots[kMostPartialFiles];
std::mutex g_writer;

}  // namespace

void remember_partial_file(const char* path) noexcept {
  const std::size_t bytes = std::strlen(path) + 1;
  if (bytes > sizeof(Slot::path)) return;
  const std::lock_guard lock(g_writer);
  // After all that are in use, to keep the order.
  int next = kMostPartialFiles;
  while (next > 0 && !g_slots[next - 1].in_use.load(std::memory_order_relaxed)) --next;
  if (next == kMostPartialFiles) return;
  std::memcpy(g_slots[next].path, path, bytes);
  g_slots[next].in_use.store(true, std::memory_order_release);
}

void forget_partial_file(const char* path) noexcept {
  const std::lock_guard lock(g_writer);
  for (Slot& slot : g_slots) {
    if (slot.in_use.load(std::memory_order_relaxed) && std::strcmp(slot.path, path) == 0) {
      slot.in_use.store(false, std::memory_order_release);
    }
  }
}

void remove_partial_files() noexcept {
  for (int i = kMostPartialFiles; i-- > 0;) {
    const Slot& slot = g_slots[i];
    if (slot.in_use.load(std::memory_order_acquire) && ::unlink(slot.path) != 0) ::rmdir(slot.path);
  }
}

}  // namespace terrace
