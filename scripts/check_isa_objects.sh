#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks the objects that are compiled above the baseline instruction set (kernels/*_<isa>.cpp) of an optimised build.
# They must not hold
#   - weak symbols: the linker keeps one copy of each, perhaps the one that needs AVX-512, for the whole program;
#   - .init_array: code that runs at load, before anybody asked the CPU what it can do.
# Usage: check_isa_objects.sh BUILD_DIR
set -euo pipefail

build=${1:?usage: check_isa_objects.sh BUILD_DIR}
mapfile -t objects < <(find "$build" -path '*/kernels/*' -regextype posix-extended \
  -regex '.*_(avx2|avxvnni|avx512|avx512vnni|avx512amx|neon|neondot)\.cpp\.o' | sort)
if ((${#objects[@]} == 0)); then
  echo "check_isa_objects: no kernel objects under $build" >&2
  exit 1
fi

bad=0
for object in "${objects[@]}"; do
  # W and V: weak definitions (w and v are references). The exception personality's pointer is data, the same everywhere.
  weak=$(nm --demangle "$object" | grep -E ' [WVu] ' | grep -v 'DW.ref.__gxx_personality_v0' || true)
  if [[ -n $weak ]]; then
    echo "$object: weak symbols:" >&2
    head -n 5 <<<"$weak" >&2
    bad=1
  fi
  if readelf --section-headers --wide "$object" | grep -q '\.init_array'; then
    echo "$object: code that runs at load (.init_array)" >&2
    bad=1
  fi
done
echo "check_isa_objects: ${#objects[@]} objects"
exit $bad
