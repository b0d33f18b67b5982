#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fails if a header needs another one to be included before it. All see the instructions of one large set; headers of
# another processor are left out.
set -euo pipefail
cd "$(dirname "$0")/.."

case $(uname -m) in
  x86_64) march=sapphirerapids other=neon ;;
  *) march=armv8.2-a+dotprod other='avx|amx|x86' ;;
esac
CXX=${CXX:-c++}
git ls-files -- '*.h' | grep -Ev "kernels/.*($other)" |
  xargs -P "$(nproc)" -I {} sh -c "$CXX -std=c++20 -march=$march -I. -w -fsyntax-only -x c++ {} || exit 255"
