# SPDX-License-Identifier: Apache-2.0
"""How far an import is."""

import sys


class Progress:
    """Tensors done, on a terminal only."""

    def __init__(self):
        self._last = -1

    def __call__(self, done, total):
        percent = 100 * done // total
        if sys.stderr.isatty() and percent != self._last:
            print(f"\r{percent:3d} %  {done} of {total} tensors", end="\n" if done == total else "", file=sys.stderr)
            self._last = percent
