#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes models/: small models with the logits that Trax's own layer code computed for them.

    python3 tests/golden/make_models.py FOLDER

FOLDER holds NAME.npz: `cfg` (the description as in tests/oracle/manifest.py), the weights `w_0000` .. in Trax's flat
order, tokens `tok_d` (and `tok_e` for an encoder), logits `eval` and `predict`; for hashed attention also the rotations
that Trax drew, `rot_eval` and `rot_predict`, [layer, head, d_head, n_hashes, sum of factors / 2]. The weights go through
tools/import_trax.py, as a published checkpoint.
"""

import json
import pathlib
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE.parent / "import"), str(HERE.parents[1] / "tools")]

import import_trax  # noqa: E402
from oracle.manifest import Cfg  # noqa: E402
from train.container import read_container, write_container  # noqa: E402
from trax_files import write_triple  # noqa: E402


def import_model(archive, out, rotations=None):
    """Writes the model file `out`; `rotations` replaces the random ones of its hashed attention."""
    cfg = Cfg(**json.loads(str(archive["cfg"])))
    flat = [archive[name] for name in sorted(archive.files) if name.startswith("w_")]
    with tempfile.TemporaryDirectory() as folder:
        config, weights, _ = write_triple(pathlib.Path(folder), cfg, flat)
        command = ["--config", config, "--weights", weights, "--out", out, "--end-id", -1]
        if import_trax.main([*map(str, command)]) != 0:
            raise SystemExit(f"make_models.py: {out} was not written")
    tensors, metadata = read_container(out)
    for layer, of_layer in enumerate(rotations if rotations is not None else ()):
        # stored: [head, n_hashes, rotation, d_head]
        tensors[f"decoder.blocks.{layer}.attention.0.rotations"] = np.ascontiguousarray(of_layer.transpose(0, 2, 3, 1))
    write_container(out, tensors, metadata)


def main(folder, out=HERE / "models"):
    for path in sorted(pathlib.Path(folder).glob("*.npz")):
        archive = np.load(path)
        forms = {path.stem: None}
        if "rot_eval" in archive.files:  # Trax hashes differently when it predicts: one model for each
            forms = {f"{path.stem}_{mode}": archive[f"rot_{mode}"] for mode in ("eval", "predict")}
        for name, rotations in forms.items():
            import_model(archive, out / f"{name}.terrace", rotations)
            for key in ("tok_e", "tok_d", "eval", "predict"):
                if key in archive.files and (rotations is None or key not in ("eval", "predict") or name.endswith(key)):
                    np.save(out / f"{name}.{key}.npy", archive[key])


if __name__ == "__main__":
    main(*sys.argv[1:2])
