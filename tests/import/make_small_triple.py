#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a small Terraformer with random weights in the published layout, to try the commands of docs/import.md on:

python3 tests/import/make_small_triple.py FOLDER     config.gin, model.pkl.gz, model.weights.npy.gz, small.subword
"""

import json
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[n]) for n in (0, 1)]

from trax_files import C4_MEDIUM, weights_of, write_triple  # noqa: E402


def write(folder):
    write_triple(folder, C4_MEDIUM, weights_of(C4_MEDIUM, scale=0.15))
    golden = json.loads((pathlib.Path(__file__).resolve().parents[1] / "golden/subword.json").read_text())
    (folder / "small.subword").write_text(golden["vocabulary"], encoding="utf-8")


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
