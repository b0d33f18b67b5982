# SPDX-License-Identifier: Apache-2.0
"""Memory-mapped token files and the sampling of batches from a weighted mix of them."""

import json
from pathlib import Path

import numpy as np
import torch

from train.errors import TrainError
from train.vocabulary import START


def open_tokens(path, vocab_size):
    """uint16 ids of one file, mapped. Errors: missing, empty, odd size, an id outside the vocabulary."""
    path = Path(path)
    if not path.is_file():
        raise TrainError(f"{path}: no token file: run train.prepare first")
    size = path.stat().st_size
    if size % 2:
        raise TrainError(f"{path}: {size} bytes: expected whole uint16 ids")
    if size == 0:
        return np.zeros(0, dtype=np.uint16)
    tokens = np.memmap(path, dtype=np.uint16, mode="r")
    largest = int(tokens.max())
    if largest >= vocab_size:
        raise TrainError(f"{path}: id {largest}: the model's vocabulary has {vocab_size}")
    return tokens


class TokenMix:
    """Random windows of one split of several sources, each source drawn with its weight."""

    def __init__(self, folder, weights, split, vocab_size):
        self.sources = {name: open_tokens(Path(folder) / f"{name}.{split}.bin", vocab_size) for name in weights}
        self.split = split
        self.names = list(weights)
        total = sum(weights.values())
        self.weights = np.array([weights[name] / total for name in self.names])

    def require(self, context):
        """Every source must hold one window and the token after it."""
        for name, tokens in self.sources.items():
            if len(tokens) < context + 1:
                raise TrainError(
                    f"source '{name}' ({self.split}): {len(tokens)} tokens: "
                    f"a context of {context} needs {context + 1}; "
                    "use more text or a shorter context"
                )

    def batch(self, generator, rows, context, start_share=0.0):
        """int64 [rows, context + 1] of windows at random places; `start_share` of them begin with the start id.

        That is how the engine begins every window of a longer text (its start token, then text from anywhere).
        """
        out = np.empty((rows, context + 1), dtype=np.int64)
        for row, source in enumerate(generator.choice(len(self.names), size=rows, p=self.weights)):
            tokens = self.sources[self.names[source]]
            begin = int(generator.integers(0, len(tokens) - context))
            out[row] = tokens[begin : begin + context + 1]
        out[generator.random(rows) < start_share, 0] = START
        return torch.from_numpy(out)

    def fixed_windows(self, name, rows, context):
        """int64 [<= rows, context + 1]: evenly spaced windows after a start id, the same at every call."""
        tokens = self.sources[name]
        available = (len(tokens) - 1) // context
        if available < 1:
            raise TrainError(
                f"source '{name}' ({self.split}): {len(tokens)} tokens: less than one context of {context}"
            )
        places = np.unique(np.linspace(0, available - 1, min(rows, available)).astype(np.int64)) * context
        windows = np.stack([tokens[p : p + context + 1] for p in places]).astype(np.int64)
        windows[:, 0] = START
        return torch.from_numpy(windows)


def load_report(folder):
    """Contents of data.json, which train.prepare wrote."""
    path = Path(folder) / "data.json"
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise TrainError(f"{path}: {error}: run train.prepare first") from error
