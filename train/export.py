# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to a model file that the engine runs.

    python3 -m train.export --checkpoint runs/default/best.pt --tokenizer runs/data/tokenizer.model \
        --dtype q8 --out model.terrace

The modules carry the engine's tensor names and layouts, so that a model file is the state dictionary, the
configuration and the tokenizer.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np

from train.checkpoint import load_checkpoint
from train.container import to_bf16, to_q8, write_container
from train.errors import TrainError

DTYPES = ("f32", "bf16", "q8")
# Tensors that may have any dtype (W in docs/model-file.md); all others stay f32.
WEIGHT = re.compile(r"(\.embedding|\.weight|\.proj|\.gate|\.controller\.(down|up)|\.units|\.router)$")
ALWAYS_F32 = re.compile(r"\.(position|forget|join|predictor|sru)\b")


def is_weight(name):
    return bool(WEIGHT.search(name)) and not ALWAYS_F32.search(name)


def stored_tensors(state, dtype):
    """{name: numpy array} of a model's state dictionary, weights in `dtype`, in the order the layers run."""
    tensors = {}
    for name, tensor in state.items():
        values = np.ascontiguousarray(tensor.detach().cpu().float().numpy(), dtype="<f4")
        if not np.isfinite(values).all():
            raise TrainError(f"tensor '{name}' holds a value that is not finite: the run has diverged")
        if dtype == "f32" or not is_weight(name):
            tensors[name] = values
        elif dtype == "bf16":
            tensors[name] = to_bf16(values)
        else:
            tensors[name], tensors[name + ".scale"] = to_q8(values)
    return tensors


def export_model(path, state, model_config, dtype="f32", tokenizer=None, details=None):
    """Writes a model file. `tokenizer`: SentencePiece file or None; `details`: name, source, license."""
    if dtype not in DTYPES:
        raise TrainError(f"dtype '{dtype}': expected one of {', '.join(DTYPES)}")
    tensors = stored_tensors(state, dtype)
    kind = {"kind": "none"}
    if tokenizer is not None:
        kind = {"kind": "sentencepiece"}
        try:
            tensors["tokenizer.data"] = np.frombuffer(Path(tokenizer).read_bytes(), dtype="u1")
        except OSError as error:
            raise TrainError(f"{tokenizer}: cannot read the tokenizer: {error.strerror}") from error
    metadata = {"config": json.dumps(model_config), "tokenizer": json.dumps(kind), **(details or {})}
    write_container(path, tensors, metadata)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="train.export", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--dtype", default="bf16", choices=DTYPES)
    parser.add_argument("--tokenizer", help="SentencePiece file to put inside")
    for key in ("name", "source", "license"):
        parser.add_argument(f"--{key}", help=f"metadata '{key}' of the file")
    args = parser.parse_args(argv)
    try:
        saved = load_checkpoint(args.checkpoint)
        details = {key: getattr(args, key) for key in ("name", "source", "license") if getattr(args, key)}
        export_model(args.out, saved["model"], saved["config"]["model"], args.dtype, args.tokenizer, details)
    except TrainError as error:
        print(f"train.export: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
