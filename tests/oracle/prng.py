# SPDX-License-Identifier: Apache-2.0
"""The threefry generator of JAX in its legacy layout: LSH rotations and 'infinite' positions come from it."""

import math

import numpy as np


def _threefry_block(key, x0, x1):
    """20-round Threefry-2x32 on uint32 vectors x0, x1."""
    rot = ((13, 15, 26, 6), (17, 29, 16, 24))
    k = [np.uint32(key[0]), np.uint32(key[1])]
    k.append(k[0] ^ k[1] ^ np.uint32(0x1BD11BDA))
    with np.errstate(over="ignore"):
        x0, x1 = x0 + k[0], x1 + k[1]
        for g in range(5):
            for r in rot[g & 1]:
                x0 = x0 + x1
                x1 = ((x1 << np.uint32(r)) | (x1 >> np.uint32(32 - r))) ^ x0
            x0 = x0 + k[(g + 1) % 3]
            x1 = x1 + k[(g + 2) % 3] + np.uint32(g + 1)
    return x0, x1


def threefry(key, counts):
    """Legacy (non-partitionable) JAX layout: halves of the counter array are the lanes."""
    c = np.asarray(counts, np.uint32).ravel()
    odd = c.size & 1
    if odd:
        c = np.append(c, np.uint32(0))
    h = c.size // 2
    out = np.concatenate(_threefry_block(key, c[:h], c[h:]))
    return out[:-1] if odd else out


def prng_key(seed):
    return np.array([(seed >> 32) & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)


def prng_split(key, n=2):
    return threefry(key, np.arange(2 * n)).reshape(n, 2)


def prng_uniform(key, shape, lo=0.0, hi=1.0):
    n = int(np.prod(shape)) if shape else 1
    b = threefry(key, np.arange(n)).reshape(shape)
    f = ((b >> np.uint32(9)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)
    lo, hi = np.float32(lo), np.float32(hi)
    return np.maximum(lo, f * (hi - lo) + lo)


def _erfinv32(x):
    """Single-precision inverse erf with the polynomial XLA uses (Giles 2010)."""
    small = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06,
             0.00021858087, -0.00125372503, -0.00417768164, 0.246640727, 1.50140941)
    large = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844,
             0.00573950773, -0.0076224613, 0.00943887047, 1.00167406, 2.83297682)
    x = np.asarray(x, np.float32)
    w = (-np.log1p(-x * x)).astype(np.float32)
    near = w < 5
    w = np.where(near, w - np.float32(2.5), np.sqrt(w) - np.float32(3)).astype(np.float32)
    p = np.where(near, np.float32(small[0]), np.float32(large[0]))
    for s, l in zip(small[1:], large[1:]):
        p = np.where(near, np.float32(s), np.float32(l)) + p * w
    return (p * x).astype(np.float32)


def prng_normal(key, shape):
    lo = np.nextafter(np.float32(-1), np.float32(0))
    return np.float32(math.sqrt(2.0)) * _erfinv32(prng_uniform(key, shape, lo, 1.0))
