// SPDX-License-Identifier: Apache-2.0
#include "tools/common/interrupt.h"

#include <atomic>
#include <csignal>

#include "engine/error.h"

namespace terrace::tools {
namespace {

// A handler may touch lock-free atomics only.
std::atomic<bool> g_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free);

struct sigaction g_saved_int;
struct sigaction g_saved_term;

void on_signal(int) noexcept { g_requested.store(true, std::memory_order_relaxed); }

}  // namespace

Interrupt::Interrupt() {
  g_requested.store(false, std::memory_order_relaxed);
  struct sigaction action {};
  action.sa_handler = on_signal;
  // The default action is back after the first signal, so that a second one always works. No SA_RESTART: a
  // read from a terminal or a pipe must return too.
  action.sa_flags = SA_RESETHAND;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &g_saved_int);
  sigaction(SIGTERM, &action, &g_saved_term);
}

Interrupt::~Interrupt() {
  sigaction(SIGINT, &g_saved_int, nullptr);
  sigaction(SIGTERM, &g_saved_term, nullptr);
}

bool Interrupt::requested() noexcept { return g_requested.load(std::memory_order_relaxed); }

void Interrupt::check() { TERRACE_CHECK(!requested(), kCancelled, "interrupted"); }

}  // namespace terrace::tools
