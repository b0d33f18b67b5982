#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what Terrace needs to build and test on Debian 12 (newer Debian and Ubuntu have the same names): only the
# packages that are missing, as root or through sudo. Does nothing when all are there, so it needs no network then.
#   setup.sh [cross] [analysis]
# `cross` adds what scripts/check_aarch64.sh needs, `analysis` clang for the fuzz preset and scripts/check_tidy.sh; both
# are large and only for people who work on Terrace.
set -euo pipefail

packages=(
  # build
  cmake ninja-build g++ pkg-config git
  libtbb-dev libxsimd-dev libdnnl-dev ocl-icd-opencl-dev nlohmann-json3-dev libcli11-dev libfmt-dev
  libsentencepiece-dev libicu-dev libxxhash-dev
  # tests, benchmarks, checks
  doctest-dev libbenchmark-dev clang-format binutils
  python3 python3-numpy python3-pytest python3-torch python3-xxhash python3-sentencepiece
)
for group in "$@"; do
  case $group in
    cross) packages+=(g++-aarch64-linux-gnu qemu-user-static) ;;
    analysis) packages+=(clang libclang-rt-dev clang-tidy) ;;
    *)
      echo "setup.sh: unknown group '$group'; expected cross or analysis" >&2
      exit 2
      ;;
  esac
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "setup.sh: this system has no apt; install the equivalents of: ${packages[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
  [[ $status == "install ok installed" ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "setup.sh: run this as root, or install sudo; missing packages: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi

echo "setup.sh: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
