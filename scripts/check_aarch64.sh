#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the kernels and their tests for 64-bit Arm and runs them under qemu, once on a CPU with SDOT and once on one
# without. `scripts/setup.sh cross` installs the cross compiler and qemu.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in aarch64-linux-gnu-g++ qemu-aarch64-static; do
  if ! command -v "$tool" >/dev/null; then
    echo "check_aarch64: $tool is not installed (scripts/setup.sh cross)" >&2
    exit 1
  fi
done
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
fi

build=build/aarch64
cmake -G Ninja -S tests/cross -B "$build" --toolchain "$PWD/cmake/toolchain-aarch64.cmake" >/dev/null
cmake --build "$build" --parallel "${TERRACE_JOBS:-$(nproc)}"
scripts/check_isa_objects.sh "$build"
for cpu in max cortex-a53; do
  echo "check_aarch64: $cpu"
  qemu-aarch64-static -cpu "$cpu" "$build/kernel_test"
done
