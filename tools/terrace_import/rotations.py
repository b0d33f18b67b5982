# SPDX-License-Identifier: Apache-2.0
"""Rotations of LSH layers: normal numbers of JAX's generator, from the keys in a checkpoint's state or from a seed.

The state of a layer holds a key per head.
"""

import numpy as np

from .errors import ImportFailure
from .threefry import normal, split

def state_keys(state, layers):
    """The keys [heads, 2] of every LSH layer in a checkpoint's layer states, or None if they are not all there.

    A layer's state is (hash buckets, keys of all heads of all batch rows); the first batch row's are taken.
    """
    found = []
    _collect(state, found)
    if len(found) != len(layers) or any(len(keys) % layer.n_heads for keys, layer in zip(found, layers)):
        return None
    return [keys[: layer.n_heads] for keys, layer in zip(found, layers)]


def _collect(item, found):
    if isinstance(item, (list, tuple)):
        for part in item:
            _collect(part, found)
    elif isinstance(item, dict):
        _collect(list(item.values()), found)
    elif isinstance(item, np.ndarray) and item.dtype == np.uint32 and item.ndim == 2 and item.shape[1] == 2:
        found.append(item)


def draw(layers, state, seed):
    """{name: rotations [heads, hashes, rotation, d_head]} of all layers, and a word on where they come from.

    `seed` None: from the state, as Trax's next evaluation would draw them (the key is split first); or from seed 0 where
    the state has no keys. A number: from that seed, whatever the state holds.
    """
    if not layers:
        return {}, ""
    keys = state_keys(state, layers) if seed is None else None
    if keys is not None:
        source = "the keys in the checkpoint's state"
        keys = [[split(key)[1] for key in layer_keys] for layer_keys in keys]
    else:
        source = f"seed {seed or 0}" + ("" if seed is not None else " (the checkpoint's state holds no keys)")
        root = np.array([(seed or 0) >> 32 & 0xFFFFFFFF, (seed or 0) & 0xFFFFFFFF], np.uint32)
        keys = [split(key, layer.n_heads) for key, layer in zip(split(root, len(layers)), layers)]
    return {layer.name: _rotations(layer, layer_keys) for layer, layer_keys in zip(layers, keys)}, source


def _rotations(layer, keys):
    heads, hashes, rotations, d_head = layer.shape
    if len(keys) != heads:
        raise ImportFailure(f"{layer.name}: {len(keys)} keys for {heads} heads")
    # Trax draws [d_head, hashes, rotations]; the model file keeps one row per rotation vector.
    return np.stack([normal(key, (d_head, hashes, rotations)).transpose(1, 2, 0) for key in keys])
