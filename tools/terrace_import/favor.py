# SPDX-License-Identifier: Apache-2.0
"""FAVOR attention: relu features, or the softmax approximation with its random features.

Those are constants of Trax's code, not weights: made here and kept in the model file. Source: Choromanski et al. 2021.
"""

import math

import numpy as np

from .errors import ImportFailure
from .gin_config import ABSENT
from .projections import dense
from .threefry import normal, split

KEY = np.zeros(2, np.uint32)  # Trax draws from key 0, whatever the seed of the training
STABILIZERS = ("numerical_stabilizer", "epsilon")  # constants of the engine


def favor(flat, name, layer, d):
    """Favor and CausalFavor: four dense layers."""
    settings = flat.settings
    heads = settings.need("n_heads")
    for key in STABILIZERS:
        _check_usual(settings, layer, key)
    softmax = bool(settings.layer_usual(layer, "use_approximate_softmax"))
    if softmax and layer.name != "Favor":
        raise ImportFailure(f"{layer.name}.use_approximate_softmax: only the bidirectional Favor has softmax features")
    normalize = softmax and bool(settings.layer_usual(layer, "normalize_data"))
    # Trax's normalize_data scales q and k, softmax(q k / sqrt(d_head)); here the maps that make them carry that.
    factor = (d // heads) ** -0.25 if normalize else 1.0
    for part in ("q", "k", "v", "out"):
        dense(flat, f"{name}.{part}", d, d, factor=factor if part in ("q", "k") else 1.0)
    config = {"kind": "favor"}
    if softmax:
        shape = settings.layer_usual(layer, "n_random_features"), d // heads
        scale_by_norm = bool(settings.layer_usual(layer, "scale_by_norm"))
        flat.put(f"{name}.features", shape, (), lambda: random_features(*shape, scale_by_norm))
        config["softmax_features"] = shape[0]
    return config


def _check_usual(settings, layer, key):
    usual = settings.layer_default(layer, key)
    given = settings.layer_given(layer, key)
    if given not in (ABSENT, usual):
        raise ImportFailure(f"{layer.name}.{key}: only Trax's default {usual!r} is offered, found {given!r}")


def random_features(n_rows, n_columns, scale_by_norm):
    """[n_rows, n_columns]: orthogonal blocks, each from a key of its own; rows of length sqrt(n_columns), or of the
    lengths of as many normal vectors."""
    key, blocks = KEY, []
    for _ in range(math.ceil(n_rows / n_columns)):
        key, sub = split(key)
        blocks.append(np.linalg.qr(normal(sub, (n_columns, n_columns)))[0].T)
    rows = np.concatenate(blocks)[:n_rows]
    if scale_by_norm:
        return rows * np.linalg.norm(normal(KEY, (n_rows, n_columns)), axis=1, keepdims=True)
    return rows * math.sqrt(n_columns)
