#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the kernels and their tests for 64-bit Arm and runs them under qemu, once on a CPU with SDOT and once on one
# without. Needs g++-aarch64-linux-gnu and qemu-user-static; says so and succeeds where they are missing, unless
# TERRACE_REQUIRE_CROSS is set.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in aarch64-linux-gnu-g++ qemu-aarch64-static; do
  if ! command -v "$tool" >/dev/null; then
    echo "check_aarch64: skipped, $tool is not installed" >&2
    [[ -z ${TERRACE_REQUIRE_CROSS:-} ]]
    exit
  fi
done

build=build/aarch64
cmake -S tests/cross -B "$build" --toolchain "$PWD/cmake/toolchain-aarch64.cmake" >/dev/null
cmake --build "$build" --parallel "${TERRACE_JOBS:-$(nproc)}"
scripts/check_isa_objects.sh "$build"
for cpu in max cortex-a53; do
  echo "check_aarch64: $cpu"
  qemu-aarch64-static -cpu "$cpu" "$build/kernel_test"
done
