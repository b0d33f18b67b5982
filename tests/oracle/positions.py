# SPDX-License-Identifier: Apache-2.0
"""Positional encodings (trax/layers/research/position_encodings.py and attention.py, rotary_positional_embedding.py).

Each adds to x[L, d], whose first row has position `start`.
"""

import math

import numpy as np

from .prng import _threefry_block, prng_key, prng_split


def _clamped_rows(table, start, n):
    """dynamic_slice: a slice that would run past the end is moved back so that it fits."""
    s = min(max(start, 0), table.shape[0] - n)
    return table[s:s + n]


def pos_learned(x, table, start=0, proj=None):
    """Learned table [max_len, d]; old checkpoints store [1, max_len, d].

    proj: optional [d_small, d] for the low-rank variant, table is then [max_len, d_small].
    """
    if table.ndim == 3:
        table = table[0]
    rows = _clamped_rows(table, start, x.shape[0])
    return x + (rows if proj is None else rows @ proj)


def init_learned_table(max_len, d):
    """Initial value of the learned table: sin in even columns, cos in odd ones."""
    t = np.arange(max_len)[:, None] * np.exp(np.arange(0, d, 2) * -(math.log(10000.0) / d))
    out = np.zeros((max_len, d), np.float32)
    out[:, 0::2], out[:, 1::2] = np.sin(t), np.cos(t)
    return out


def pos_sincos(x, start=0):
    """Fixed table, [all sines | all cosines] (NOT interleaved)."""
    n, d = x.shape
    a = (start + np.arange(n))[:, None] * np.exp(np.arange(0, d, 2) * -(math.log(10000.0) / d))
    return x + np.concatenate([np.sin(a), np.cos(a)], -1)


def pos_fixed_base(x, base_weights, start_vec, start=0, bases=(11, 13, 14, 15)):
    """base_weights[b][i] is [1, d/8] for digit i (least significant first) in base b."""
    n = x.shape[0]
    e = np.zeros_like(x)
    for b, w in zip(bases, base_weights):
        p = start + np.arange(n)
        cols = []
        for wi in w:
            cols.append((p % b)[:, None] * np.asarray(wi).reshape(1, -1))
            p = p // b
        e = e + np.concatenate(cols, -1)
    if start == 0:
        e[0] = e[0] + np.asarray(start_vec).reshape(-1)
    return x + e


def pos_axial(x, axis_tables, start=0):
    """axis_tables[a] is [1, 1.., shape[a], ..1, d_a]; position unravels row-major."""
    shape = tuple(t.shape[i + 1] for i, t in enumerate(axis_tables))
    full = [np.broadcast_to(t[0], shape + (t.shape[-1],)).reshape(-1, t.shape[-1])
            for t in axis_tables]
    return x + _clamped_rows(np.concatenate(full, -1), start, x.shape[0])


def pos_time_bin(x, bin_length, start=0):
    """Overwrites the last three channels."""
    q, r = np.divmod(start + np.arange(x.shape[0]), bin_length)
    f = np.stack([1.0 / (1 + q), r / bin_length, (q % 2).astype(float)], -1)
    return np.concatenate([x[:, :-3], f], -1)


def pos_infinite(x, w, start=0, drift=0.03):
    """'infinite' encoding (affine=False): cos waves with a drifting phase, then a [d, d] map w."""
    n, d = x.shape
    half, hi = (d + 1) // 2, start + n
    key = prng_split(prng_key(234234535))[0]
    i = np.arange(hi * half, dtype=np.uint32)
    word = _threefry_block(key, i, np.zeros_like(i))[0].reshape(hi, half)
    noise = np.cumsum(word.astype(np.float32) / np.float32(2 ** 31 - 1) * 3 ** 0.5, axis=0) * drift ** 0.5
    if d > 2:
        drift = drift ** (half / (d // 2))
    freq = np.geomspace(0.5, 0.5 * drift ** 2, half)
    c = np.arange(d)
    t = np.arange(start, hi)[:, None]
    cyc = (c % 2) / 4 + freq[c // 2] * t + noise[start:][:, c // 2] / 4
    return x + np.cos(2 * np.pi * cyc) @ w


def rotary(x, start=0):
    """Rotary embedding over the whole model width, half-split layout."""
    n, d = x.shape
    f = (start + np.arange(n))[:, None] * np.exp(np.arange(0, d, 2) * -(math.log(10000.0) / d))
    cs, sn = np.cos(np.concatenate([f, f], -1)), np.sin(np.concatenate([f, f], -1))
    h = d // 2
    return x * cs + np.concatenate([-x[:, h:], x[:, :h]], -1) * sn
