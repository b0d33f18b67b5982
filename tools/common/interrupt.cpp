// SPDX-License-Identifier: Apache-2.0
#include "tools/common/interrupt.h"

#include <atomic>
#include <csignal>
#include <iterator>

#include "engine/error.h"
#include "engine/partial_files.h"

namespace terrace::tools {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};

// A handler may touch lock-free atomics only.
std::atomic<bool> g_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free);

struct sigaction g_saved[std::size(kSignals)];

void on_signal(int number) noexcept {
  const bool first = !g_requested.exchange(true, std::memory_order_relaxed);
  if (first || number == SIGHUP) return;  // a terminal that closes may send several
  remove_partial_files();
  std::signal(number, SIG_DFL);
  std::raise(number);  // delivered when the handler returns
}

}  // namespace

Interrupt::Interrupt() {
  g_requested.store(false, std::memory_order_relaxed);
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = 0;  // no SA_RESTART: a read from a terminal or a pipe must return too
  sigemptyset(&action.sa_mask);
  for (std::size_t i = 0; i < std::size(kSignals); ++i) {
    sigaction(kSignals[i], nullptr, &g_saved[i]);
    if (kSignals[i] == SIGHUP && g_saved[i].sa_handler == SIG_IGN) continue;
    sigaction(kSignals[i], &action, nullptr);
  }
}

Interrupt::~Interrupt() {
  for (std::size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &g_saved[i], nullptr);
}

bool Interrupt::requested() noexcept { return g_requested.load(std::memory_order_relaxed); }

void Interrupt::check() { TERRACE_CHECK(!requested(), kCancelled, "interrupted"); }

}  // namespace terrace::tools
