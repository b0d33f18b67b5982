// SPDX-License-Identifier: Apache-2.0
#include "attention/causal_attention.h"

namespace terrace {

void CausalAttention::forward(const Exec& exec, const KvCache& kv, ConstRows q, Rows y) const {
  const ProfileZone zone(exec.profile, Zone::kAttention);
  TERRACE_DCHECK(q.n <= kv.length());
  core_.run(exec, kv, VisibleSlots::causal(kv.length() - q.n), q, y);
}

void CausalAttention::step(const Exec& exec, KvCache& kv, ConstRows q, ConstRows k, ConstRows v, Rows y,
                           TaskRef make) const {
  const ProfileZone zone(exec.profile, Zone::kAttention);
  core_.append_and_run(exec, kv, k, v, VisibleSlots::causal(kv.length()), q, y, make);
}

}  // namespace terrace
