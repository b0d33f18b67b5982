# SPDX-License-Identifier: Apache-2.0
"""A Trax checkpoint of either generation as one flat list of float32 arrays.

2021 and later   X.pkl.gz (settings, layer states; `flat_weights` is an int) and X.weights.npy.gz (the weights)
2020, and Layer.save_to_file   one gzipped pickle whose `flat_weights` is the list of arrays
"""

import os

import numpy as np

from .errors import ImportFailure
from .npy_stream import read_arrays, to_float32
from .safe_pickle import read_pickle


class Checkpoint:
    """The flat list. shapes[i] and is_zero[i] are known at once; arrays() yields the arrays in order, any number of
    times. A `.npy.gz` stream is decompressed once per pass and never held as a whole."""

    def __init__(self, path, arrays, state=None):
        self.path = path
        self._arrays = arrays
        self.state = state  # flat_state of the pickle, if it was read
        self.shapes, self.is_zero = [], []
        for array in arrays():
            self.shapes.append(array.shape)
            self.is_zero.append(not array.any())

    def arrays(self):
        return self._arrays()


def open_checkpoint(path):
    """Reads `path`, a *.weights.npy.gz or a *.pkl.gz; checks that it can be read to its end."""
    if path.endswith((".npy.gz", ".npy")):
        companion = path[: -len("weights.npy.gz")] + "pkl.gz" if path.endswith("weights.npy.gz") else None
        state = read_pickle(companion).get("flat_state") if companion and os.path.exists(companion) else None
        return Checkpoint(path, lambda: read_arrays(path), state)
    content = read_pickle(path)
    if not isinstance(content, dict) or "flat_weights" not in content:
        raise ImportFailure(f"{path}: a pickle without 'flat_weights': not a Trax checkpoint")
    weights, state = content["flat_weights"], content.get("flat_state")
    if isinstance(weights, (int, np.integer)):
        return _with_companion(path, state)
    if not isinstance(weights, list) or not all(isinstance(w, np.ndarray) for w in weights):
        raise ImportFailure(f"{path}: 'flat_weights' is neither a number nor a list of arrays")
    weights = [to_float32(w) for w in weights]
    return Checkpoint(path, lambda: iter(weights), state)


def _with_companion(path, state):
    """The weights beside a pickle of the newer generation."""
    candidates = [path + ".npy"]
    if path.endswith("pkl.gz"):
        candidates.insert(0, path[: -len("pkl.gz")] + "weights.npy.gz")
    for candidate in candidates:
        if os.path.exists(candidate):
            return Checkpoint(candidate, lambda: read_arrays(candidate), state)
    raise ImportFailure(f"{path}: its weights are in a file of their own; expected {' or '.join(candidates)}")
